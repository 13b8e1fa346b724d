//! Downloads against a real HTTP server on loopback, one process and several.

mod download;
mod processes;
mod server;
