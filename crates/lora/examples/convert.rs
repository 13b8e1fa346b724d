//! Converts an adapter between the LoRA authors' format and PEFT's.
//!
//!     cargo run -p lowburn-lora --example convert -- ADAPTER.bin FOLDER ALPHA
//!     cargo run -p lowburn-lora --example convert -- FOLDER ADAPTER.bin
//!
//! Without arguments it makes a small adapter in a temporary folder and converts that.

use std::error::Error;
use std::path::Path;

use lowburn_lora::{
    AdapterFile, Factors, HostTensor, LoraConfig, Targets, read_loralib, read_peft, write_loralib,
    write_peft,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => demonstrate(),
        [file, folder, alpha] => {
            let adapter = read_loralib(Path::new(file), alpha.parse()?)?;
            describe(&adapter);
            Ok(write_peft(&adapter, Path::new(folder))?)
        }
        [folder, file] => {
            let adapter = read_peft(Path::new(folder))?;
            describe(&adapter);
            Ok(write_loralib(&adapter, Path::new(file))?)
        }
        _ => Err("expected ADAPTER.bin FOLDER ALPHA, or FOLDER ADAPTER.bin".into()),
    }
}

fn describe(adapter: &AdapterFile) {
    println!(
        "{} adapted layers, rank {}, alpha {}, targets {}; {} tensors saved in full",
        adapter.factors.len(),
        adapter.config.rank,
        adapter.config.alpha,
        adapter.config.targets,
        adapter.saved.len()
    );
}

fn demonstrate() -> Result<(), Box<dyn Error>> {
    let mut adapter = AdapterFile::new(LoraConfig::new(2, 6.0, Targets::names(["query"])));
    for layer in 0..3 {
        let factors = Factors {
            a: HostTensor::new([2, 4], vec![0.1; 8]),
            b: HostTensor::new([3, 2], vec![0.2; 6]),
        };
        adapter
            .factors
            .insert(format!("encoder.{layer}.query"), factors);
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("adapter.bin");
    write_peft(&adapter, folder.path())?;
    write_loralib(&read_peft(folder.path())?, &file)?;
    let again = read_loralib(&file, 6.0)?;
    describe(&again);
    assert_eq!(again, adapter);
    Ok(())
}
