//! Facts about the machine for the run record.

use std::fs;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};

/// Largest resident memory of this process so far, in bytes; 0 where the system does not tell.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// The processor's name; `unknown` where the system does not tell.
#[must_use]
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Floating-point operations a second of this process's matrix products on the processor, measured for a quarter of a
/// second on matrices as large as roberta-base's.
#[must_use]
pub fn matrix_rate() -> f64 {
    let device = Device::flex();
    let [rows, inner, columns] = [256, 768, 3072];
    let x = Tensor::<2>::random([rows, inner], Distribution::Default, &device);
    let weight = Tensor::<2>::random([inner, columns], Distribution::Default, &device);
    let product = || lowburn_kernels::linear(x.clone(), weight.clone(), None).into_data();
    product(); // the first call pays for starting threads
    let (began, mut products) = (Instant::now(), 0.0);
    while began.elapsed() < MEASURED {
        product();
        products += 1.0;
    }
    products * 2.0 * (rows * inner * columns) as f64 / began.elapsed().as_secs_f64()
}

/// How long matrix products are measured.
const MEASURED: Duration = Duration::from_millis(250);

/// Threads this process computes with.
#[must_use]
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_memory_and_processor() {
        assert!(super::peak_memory_bytes() > 1 << 20);
        assert!(!super::cpu_name().is_empty());
        assert!(super::threads() > 0);
    }
}
