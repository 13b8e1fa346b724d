//! The life of a training process: it loads, takes steps, evaluates and saves.
//!
//! The parts are those of `lowburn_models::load_classifier`, of [`crate::step`], [`crate::evaluate`] and
//! [`crate::state`], and for activation checkpointing those of `forward_keeping_inputs` in `lowburn-models`.

use super::heap::{Block, Heap, NUMBER, Part, Shared};
use super::kept::{Node, Value};
use super::passes::{Batch, Walk};
use super::sizes::{Layer, Linear, Parameter, Sizes};
use super::tape::Tape;
use super::{Phase, TrainingShape};
use crate::prepare::EVALUATION_BATCH;

/// Bytes of a file that are read at a time.
const PIECE: u64 = 1 << 20;

/// Steps before the first evaluation. Blocks find their places in the first, and the later ones are alike.
const STEPS: usize = 3;

/// Parameters as they lie in memory.
struct Tensors {
    /// With what each of them takes.
    weights: Vec<(Parameter, Block)>,
    /// Both of the optimiser, of what is trained.
    moments: Vec<Block>,
}

/// What a whole run takes.
pub(super) fn run(sizes: &Sizes, shape: &TrainingShape) -> Heap {
    let batch = Batch {
        rows: shape.batch_size as u64,
        length: shape.max_length as u64,
    };
    let most = shape.batch_size.max(EVALUATION_BATCH);
    let rows = shape.evaluation_rows.map_or(most, |rows| most.min(rows));
    let evaluation = Batch {
        rows: rows as u64,
        ..batch
    };
    let mut walk = Walk {
        sizes,
        tape: Tape::new(shape.threads),
    };
    let mut tensors = load(&mut walk.tape.heap, sizes);
    for steps in [STEPS, 1] {
        for _ in 0..steps {
            // A third pass is as the second.
            for _ in 0..shape.accumulate.min(2) {
                walk.pass(batch, shape.checkpoint_activations);
            }
            walk.update(&mut tensors);
        }
        walk.evaluate(evaluation);
        save(&mut walk.tape.heap, sizes);
    }
    walk.tape.heap
}

/// Reads the checkpoint, a tensor at a time in f32, and draws what it does not have.
fn load(heap: &mut Heap, sizes: &Sizes) -> Tensors {
    heap.phase = Phase::Loading;
    let mut weights = Vec::new();
    for parameter in &sizes.parameters {
        let bytes = parameter.numbers.saturating_mul(NUMBER);
        let mut block = heap.take(bytes, Part::Weights);
        if parameter.read {
            heap.pass(bytes.min(PIECE));
        }
        if parameter.half {
            let half = heap.take(bytes / 2, Part::Weights);
            heap.give(std::mem::replace(&mut block, half));
        }
        weights.push((*parameter, block));
    }
    Tensors {
        weights,
        moments: Vec::new(),
    }
}

/// Saves the state: all that is trained as a copy, and each tensor once more on its way into the file.
fn save(heap: &mut Heap, sizes: &Sizes) {
    heap.phase = Phase::Saving;
    let trained = || sizes.parameters.iter().filter(|own| own.trained);
    let bytes = |own: &Parameter| own.numbers.saturating_mul(NUMBER);
    let mut copies = Vec::new();
    for parameter in trained() {
        // As bytes first, then as numbers.
        let raw = heap.take(bytes(parameter), Part::Buffers);
        copies.push(heap.take(bytes(parameter), Part::Buffers));
        heap.give(raw);
    }
    for parameter in trained() {
        // The values and both moments.
        for _ in 0..3 {
            heap.pass(bytes(parameter));
        }
    }
    for copy in copies {
        heap.give(copy);
    }
}

impl Walk<'_> {
    /// Forward and backward of one batch.
    fn pass(&mut self, batch: Batch, again: bool) {
        self.tape.heap.phase = Phase::Step;
        self.tape.drops = true;
        if again {
            return self.pass_again(batch);
        }
        self.tape.records = true;
        let logits = self.forward(batch);
        let seed = self.seed(batch);
        self.tape.backward(logits, seed);
    }

    /// A forward pass. The logits are let go of; where their gradient goes remains.
    fn forward(&mut self, batch: Batch) -> Option<Node> {
        let mut x = self.embeddings(batch);
        let distances = self.distances(batch);
        for i in 0..self.sizes.layers.len() {
            x = self.layer(i, x, batch, distances.as_ref());
        }
        self.let_go(distances);
        let logits = self.head(x, batch);
        self.let_go(Some(logits))
    }

    /// Lets go of a tensor; where its gradient goes remains.
    fn let_go(&mut self, value: Option<Value>) -> Option<Node> {
        let value = value?;
        let node = value.wanted();
        self.tape.release(value);
        node
    }

    /// The gradient of the logits.
    fn seed(&mut self, batch: Batch) -> Shared {
        let numbers = batch.rows.saturating_mul(self.sizes.output.outputs);
        self.tape.fresh(numbers, Part::Activations)
    }

    /// Every trained parameter moves; its gradient goes.
    fn update(&mut self, tensors: &mut Tensors) {
        let heap = &mut self.tape.heap;
        if tensors.moments.is_empty() {
            let trained = tensors.weights.iter_mut().filter(|(own, _)| own.trained);
            for (parameter, block) in trained {
                let bytes = parameter.numbers.saturating_mul(NUMBER);
                if parameter.transposed {
                    let moved = heap.take(bytes, Part::Weights);
                    heap.give(std::mem::replace(block, moved));
                }
                for _ in 0..2 {
                    tensors.moments.push(heap.take(bytes, Part::Optimizer));
                }
            }
        }
        for gradient in std::mem::take(&mut self.tape.sum).into_values() {
            self.tape.heap.give(gradient.block);
        }
    }

    /// Forward passes without gradients.
    fn evaluate(&mut self, batch: Batch) {
        self.tape.heap.phase = Phase::Evaluation;
        self.tape.records = false;
        self.tape.drops = false;
        self.forward(batch);
    }
}

/// Where the graph of one layer begins.
struct Leaves {
    x: Value,
    distances: Option<Value>,
}

/// Activation checkpointing.
impl Walk<'_> {
    fn pass_again(&mut self, batch: Batch) {
        self.tape.records = false;
        let last = self.sizes.layers.len() - 1;
        let lowest = self.lowest();
        let distances = self.distances(batch);
        let mut x = self.embeddings(batch);
        let mut kept = Vec::new();
        for i in 0..last {
            if i >= lowest {
                kept.push(x.clone());
            }
            x = self.layer(i, x, batch, distances.as_ref());
        }
        self.tape.records = true;
        let mut tables = Vec::new();
        let leaves = self.leaves(&x, distances.as_ref(), last);
        let output = self.layer(last, leaves.x.clone(), batch, leaves.distances.as_ref());
        let logits = self.head(output, batch);
        let logits = self.let_go(Some(logits));
        let seed = self.seed(batch);
        let mut gradient = self.backward_from(logits, seed, leaves, &mut tables);
        while let Some(input) = kept.pop() {
            let Some(above) = gradient.take() else {
                self.tape.release(input);
                continue;
            };
            let i = lowest + kept.len();
            let leaves = self.leaves(&input, distances.as_ref(), i);
            self.tape.release(input);
            let output = self.layer(i, leaves.x.clone(), batch, leaves.distances.as_ref());
            let output = self.let_go(Some(output));
            let seed = self.replaced(above);
            gradient = self.backward_from(output, seed, leaves, &mut tables);
        }
        self.distances_backward(tables, batch);
        if let Some(above) = gradient {
            let output = self.embeddings(batch);
            let output = self.let_go(Some(output));
            let seed = self.replaced(above);
            self.tape.backward(output, seed);
        }
        self.tape.release(x);
        self.let_go(distances);
    }

    /// The first layer whose output depends on something that is trained.
    fn lowest(&self) -> usize {
        let sizes = self.sizes;
        if self.reaches_embeddings() || self.reaches_distances() || sizes.biases {
            return 0;
        }
        let trained = sizes.layers.iter().position(Layer::trains);
        trained.unwrap_or(sizes.layers.len())
    }

    fn reaches_embeddings(&self) -> bool {
        let projection = self.sizes.embeddings.projection.as_ref();
        self.sizes.biases || projection.is_some_and(Linear::trains)
    }

    fn reaches_distances(&self) -> bool {
        let sizes = self.sizes;
        let distances = sizes.distances.as_ref();
        distances.is_some_and(|own| sizes.full || (sizes.biases && own.config.normalised))
    }

    fn leaves(&mut self, x: &Value, distances: Option<&Value>, i: usize) -> Leaves {
        let below = self.reaches_embeddings() || i > self.lowest();
        let reached = self.reaches_distances();
        let mut leaf = |of: &Value, tracked| {
            let block = Shared::clone(&of.block);
            self.tape.value(block, of.numbers, 0, tracked)
        };
        Leaves {
            x: leaf(x, below),
            distances: distances.map(|table| leaf(table, reached)),
        }
    }

    /// The gradient of the sum of an output's products with its gradient: made of ones, then the latter goes.
    fn replaced(&mut self, above: Shared) -> Shared {
        let seed = self.tape.heap.take(above.bytes, Part::Activations);
        self.tape.heap.release(above);
        Shared::new(seed)
    }

    /// The gradient of a layer's input; those of the distances are added to the list.
    fn backward_from(
        &mut self,
        output: Option<Node>,
        seed: Shared,
        leaves: Leaves,
        tables: &mut Vec<Shared>,
    ) -> Option<Shared> {
        self.tape.backward(output, seed);
        let gradient = self.tape.gradients.remove(&leaves.x.node);
        if let Some(table) = &leaves.distances {
            tables.extend(self.tape.gradients.remove(&table.node));
        }
        self.tape.release(leaves.x);
        self.let_go(leaves.distances);
        gradient
    }

    /// The gradients of what all layers made of the distances, one sum.
    fn distances_backward(&mut self, tables: Vec<Shared>, batch: Batch) {
        let mut tables = tables.into_iter();
        let Some(sum) = tables.next() else {
            return;
        };
        self.tape.drop_all(tables);
        let output = self.distances(batch);
        let output = self.let_go(output);
        self.tape.backward(output, sum);
    }
}
