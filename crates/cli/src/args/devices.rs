//! What may be typed after `lowburn devices`.

use clap::Args;
use lowburn_trainer::DeviceName;

/// `lowburn devices`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
\x1b[1;32mExamples\x1b[0m
  lowburn devices                       # what is here: each name can be given to --device
  lowburn devices --check cuda:0        # does it compute what the processor computes?

A device is where a command computes. flex, the processor, is in every build; cuda, rocm, vulkan, metal and wgpu
are added when the program is built, and need a driver where it runs. docs/gpu.md tells more.")]
pub struct DevicesArgs {
    /// Compare this device with the processor, on small models of both architectures, and print a report; fails where
    /// it computes something else
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub check: Option<DeviceName>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short)]
    pub quiet: bool,
}
