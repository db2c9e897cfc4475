mod backlog;
mod bad_input;
mod layers;
mod main_job;
mod time_travel;
