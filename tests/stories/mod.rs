mod backlog;
mod bad_input;
mod commands;
mod demo;
mod layers;
mod main_job;
mod time_travel;
