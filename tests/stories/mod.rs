mod backlog;
mod bad_input;
mod footprint;
mod layers;
mod main_job;
mod time_travel;
