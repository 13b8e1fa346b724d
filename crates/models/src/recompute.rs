//! Activation checkpointing: a forward pass that keeps the input of every layer and nothing else, and
//! a backward pass that computes one layer after the other again (Chen et al. 2016, "Training deep
//! nets with sublinear memory cost").
//!
//! The first walk through the encoder is without a graph. Only the last layer and the head have one
//! from the start. Going down, each layer is run once more from its kept input, with the dropout
//! masks of the first time, and the gradient from above is put in by the sum of the products of
//! output and gradient, whose gradient with respect to the output is exactly that gradient.
//!
//! Every gradient has the bits of a backward pass through one graph: the same operations on the
//! same numbers. What several layers read, the embeddings of distances, has its gradients added in
//! the order in which one graph adds them, from the first layer to the last.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};

use crate::attention::Keep;
use crate::backbone::Backbone;
use crate::classifier::SequenceClassifier;
use crate::disentangled::Distances;
use crate::input::ModelInput;
use crate::mode::Mode;

/// What a forward pass left for its backward pass: the input of every layer that a gradient goes
/// through.
#[derive(Debug)]
pub struct KeptInputs<'a> {
    backbone: &'a Backbone,
    input: &'a ModelInput,
    reach: Reach,
    /// As it was before the embeddings.
    mode: Mode,
    distances: Option<Distances>,
    /// The inputs `[tokens, d]` of the layers from the lowest with a gradient to the last but one,
    /// and the mode before each.
    layers: Vec<(Tensor<2>, Mode)>,
    /// Where the graph of the logits begins: below the last layer.
    top: Leaves,
}

impl SequenceClassifier {
    /// The logits of [`SequenceClassifier::forward`], bit for bit, without a graph below the last
    /// layer. For the gradients give the loss to [`KeptInputs::backward`].
    ///
    /// The model stays as it is until then: a layer that changed would give gradients of another
    /// function.
    ///
    /// # Shapes
    /// Returns `[batch, labels]`. Kept are `[tokens, d]` for each layer, and nothing below the lowest
    /// layer that is trained.
    ///
    /// # Panics
    /// Panics when the model is on a device without autodiff.
    pub fn forward_keeping_inputs<'a>(
        &'a self,
        input: &'a ModelInput,
        mode: &mut Mode,
    ) -> (Tensor<2>, KeptInputs<'a>) {
        assert!(
            self.device().is_autodiff(),
            "gradients need a model on a device with autodiff"
        );
        let backbone = &self.backbone;
        let (reach, start) = (Reach::of(backbone), mode.clone());
        let graphless = backbone.valid();
        let distances = graphless.distances(input);
        let mut x = graphless.embeddings.forward(input, mode);
        let last = backbone.encoder.layer.len() - 1;
        let mut layers = Vec::new();
        for i in 0..last {
            if i >= reach.lowest {
                layers.push((x.clone(), mode.clone()));
            }
            x = graphless.layer(i, x, input, distances.as_ref(), Keep::First, mode);
        }
        let top = Leaves::new(x, distances.as_ref(), reach, last);
        let first = top.run(backbone, last, input, mode);
        let logits = self.head.forward(first, mode);
        let kept = KeptInputs {
            backbone,
            input,
            reach,
            mode: start,
            distances,
            layers,
            top,
        };
        (logits, kept)
    }
}

impl KeptInputs<'_> {
    /// The gradients of a loss that was computed from the logits.
    ///
    /// `each` gets them part by part: of the last layer and the head, of every layer below, of the
    /// embeddings of distances, of the embeddings. No parameter has a gradient in two of them.
    ///
    /// # Panics
    /// Panics when nothing that the loss depends on is trained.
    pub fn backward(mut self, loss: &Tensor<1>, each: &mut dyn FnMut(&mut Gradients)) {
        let mut tables = Vec::new();
        let mut graph = loss.backward();
        let mut gradient = self.top.take(&mut graph, &mut tables);
        each(&mut graph);
        drop(graph);
        while let Some((x, mut mode)) = self.layers.pop() {
            let Some(above) = gradient.take() else {
                break;
            };
            let i = self.reach.lowest + self.layers.len();
            let leaves = Leaves::new(x, self.distances.as_ref(), self.reach, i);
            let output = leaves.run(self.backbone, i, self.input, &mut mode);
            let mut graph = backward_from(output, above);
            gradient = leaves.take(&mut graph, &mut tables);
            each(&mut graph);
        }
        self.distances_backward(tables, each);
        if let Some(above) = gradient {
            let embeddings = &self.backbone.embeddings;
            let output = embeddings.forward(self.input, &mut self.mode);
            each(&mut backward_from(output, above));
        }
    }

    /// The embeddings of distances, from the gradients of all that was made of them, last layer
    /// first.
    fn distances_backward(&self, tables: Vec<Tensor<2>>, each: &mut dyn FnMut(&mut Gradients)) {
        let total = tables.into_iter().rev().reduce(|sum, more| sum + more);
        if let Some(above) = total
            && let Some(distances) = self.backbone.distances(self.input)
        {
            let [table, _] = distances.tables;
            each(&mut backward_from(table, above));
        }
    }
}

/// Where gradients go in an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// Something in the embeddings is trained.
    embeddings: bool,
    /// Something in the embeddings of distances is trained.
    distances: bool,
    /// The first layer whose output depends on something that is trained; the number of layers
    /// where there is none.
    lowest: usize,
}

impl Reach {
    fn of(backbone: &Backbone) -> Self {
        let stack = &backbone.encoder;
        let embeddings = trains(&backbone.embeddings);
        let distances = stack.relative.as_ref().is_some_and(trains);
        let from_start = embeddings || distances || stack.conv.as_ref().is_some_and(trains);
        let lowest = match from_start {
            true => Some(0),
            false => stack.layer.iter().position(trains),
        };
        Self {
            embeddings,
            distances,
            lowest: lowest.unwrap_or(stack.layer.len()),
        }
    }

    /// Whether a gradient goes on below layer `i`.
    fn below(self, i: usize) -> bool {
        self.embeddings || i > self.lowest
    }
}

/// Whether any parameter of a module is trained.
fn trains<M: Module>(module: &M) -> bool {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_require_grad();
        }
    }
    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}

/// Where the graph of one layer begins.
#[derive(Debug)]
struct Leaves {
    /// The layer's input, `[tokens, d]`.
    x: Tensor<2>,
    distances: Option<Distances>,
}

impl Leaves {
    /// The beginning of the graph of layer `i`. What needs no gradient is a constant, so that the
    /// backward pass leaves its product out.
    fn new(x: Tensor<2>, distances: Option<&Distances>, reach: Reach, i: usize) -> Self {
        let leaf = |x: Tensor<2>, wanted| x.autodiff().set_require_grad(wanted);
        let tables = |known: &Distances| known.map(|table| leaf(table, reach.distances));
        Self {
            x: leaf(x, reach.below(i)),
            distances: distances.map(tables),
        }
    }

    /// The output of layer `i` of the encoder, for token 0 only in the last.
    fn run(&self, backbone: &Backbone, i: usize, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        let distances = self.distances.as_ref();
        backbone.layer(i, self.x.clone(), input, distances, Keep::First, mode)
    }

    /// Takes the gradients of the leaves out of `graph`: the input's is returned, those of the tables
    /// are added to the list.
    fn take(&self, graph: &mut Gradients, tables: &mut Vec<Tensor<2>>) -> Option<Tensor<2>> {
        for table in self.distances.iter().flat_map(|known| &known.tables) {
            tables.extend(table.grad_remove(graph));
        }
        self.x.grad_remove(graph)
    }
}

/// The gradients of all that `output` was computed from, where its own is `gradient`.
///
/// # Shapes
/// Both are of one shape.
fn backward_from(output: Tensor<2>, gradient: Tensor<2>) -> Gradients {
    // In f32: a sum of halves could overflow, and only its gradient is wanted.
    let [output, gradient] = [output, gradient.autodiff()].map(|x| x.cast(DType::F32));
    (output * gradient).sum().backward()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use lowburn_lora::LoraConfig;

    use super::*;
    use crate::adapt::Method;
    use crate::config::ModelConfig;
    use crate::load::random_classifier;

    const LAYERS: usize = 3;

    fn reach(targets: &str, method: Method) -> Reach {
        let config = serde_json::json!({
            "model_type": "deberta-v2", "vocab_size": 30, "hidden_size": 12, "num_hidden_layers": LAYERS,
            "num_attention_heads": 3, "intermediate_size": 16, "max_position_embeddings": 16,
            "relative_attention": true, "position_buckets": 4, "pos_att_type": "p2c|c2p",
            "share_att_key": true, "conv_kernel_size": 3,
        });
        let text = config.to_string();
        let config = ModelConfig::parse(text.as_bytes(), Path::new("config.json")).unwrap();
        let mut model = random_classifier(&config, 2, 1, &Device::flex().autodiff()).unwrap();
        let lora = LoraConfig::new(2, 4.0, targets.parse().unwrap());
        let plan = lora.plan(&model.linear_names()).unwrap();
        model.attach(&plan, lora.init, 1);
        Reach::of(&model.set_trainable(method).backbone)
    }

    #[test]
    fn nothing_is_kept_below_what_is_trained() {
        let cases = [
            ("value_proj", Method::Lora, false, 0),
            (r".*layer\.1\..*value_proj", Method::Lora, false, 1),
            (r".*layer\.2\..*value_proj", Method::Lora, false, 2),
            ("value_proj", Method::Head, false, LAYERS),
            ("value_proj", Method::Bitfit, true, 0),
            ("value_proj", Method::Full, true, 0),
        ];
        for (targets, method, embeddings, lowest) in cases {
            let found = reach(targets, method);
            // LayerNorm over the distances is off, so that BitFit trains nothing of theirs.
            let distances = method == Method::Full;
            let expected = Reach {
                embeddings,
                distances,
                lowest,
            };
            assert_eq!(found, expected, "{method} on {targets}");
            for i in 0..LAYERS {
                assert_eq!(found.below(i), embeddings || i > lowest);
            }
        }
    }
}
