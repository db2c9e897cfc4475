mod layers;
mod main_job;
