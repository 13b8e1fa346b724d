//! LoRA in a model of one's own: take `lowburn_lora::Linear` for the projections, plan by name,
//! attach, train, exchange with PEFT, merge.
//!
//!     cargo run -p lowburn-lora --example own_model

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, activation};
use lowburn_lora::{Linear, LoraConfig, LoraInit, Targets};

/// A perceptron with two projections that can carry adapters.
#[derive(Module, Debug)]
struct Perceptron {
    up: Linear,
    down: Linear,
}

impl Perceptron {
    fn new(device: &Device) -> Self {
        let weight = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 0.2), device);
        Self {
            up: Linear::new(weight([8, 32]), Some(Tensor::zeros([32], device))),
            down: Linear::new(weight([32, 4]), None),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down
            .forward(activation::relu(self.up.forward(x, None)), None)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let mut model = Perceptron::new(&device);
    let x = Tensor::<2>::random([3, 8], Distribution::Normal(0.0, 1.0), &device);
    let before = model.forward(x.clone());

    // Which layers get an adapter is data: names, a regular expression, or all of them.
    let config = LoraConfig::new(2, 4.0, Targets::names(["up"]));
    let plan = config.plan(&["block.up".to_owned(), "block.down".to_owned()])?;
    for (name, settings) in &plan {
        println!("{name}: rank {}, scale {}", settings.rank, settings.scale);
        model.up.attach(settings, LoraInit::KaimingUniform, 7);
    }

    // A new adapter changes nothing: B is zero.
    let difference = (model.forward(x.clone()) - before.clone()).abs().max();
    println!(
        "difference after attaching: {}",
        difference.into_scalar::<f32>()
    );

    // Merging folds the adapter into the weight, and unmerging takes it out again.
    if let Some(adapter) = model.up.merge() {
        model.up.unmerge(adapter);
    }
    Ok(())
}
