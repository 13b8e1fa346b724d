//! The forward pass of a model over a tape, operation by operation as `lowburn-models` has them.

use lowburn_models::Activation;

use super::heap::Part;
use super::kept::{Attention, Key, Norm, TableRows, Value};
use super::sizes::Sizes;
use super::tape::Tape;

/// Rows of a batch, all of one length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) rows: u64,
    pub(super) length: u64,
}

impl Batch {
    pub(super) fn tokens(self) -> u64 {
        self.rows.saturating_mul(self.length)
    }
}

/// A model in a process.
pub(super) struct Walk<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) tape: Tape,
}

impl Walk<'_> {
    /// What layers are computed upon: `[tokens, hidden]`.
    pub(super) fn embeddings(&mut self, batch: Batch) -> Value {
        let own = &self.sizes.embeddings;
        let norm = self.norm();
        let mut x = self.rows(Key::Words, own.words, batch.tokens(), batch);
        let positions = own
            .positions
            .map(|entries| self.rows(Key::Positions, entries, batch.length, batch));
        if own.fused {
            return self.tape.norm(x, positions, self.sizes.hidden, norm);
        }
        let types = own
            .types
            .map(|entries| self.rows(Key::Types, entries, entries, batch));
        for part in [positions, types].into_iter().flatten() {
            x = self.tape.add(x, part);
        }
        if let Some(projection) = &own.projection {
            x = self.tape.linear(x, projection, batch.tokens(), false, None);
        }
        self.tape.norm(x, None, self.sizes.hidden, norm)
    }

    /// A row of a table for every token; `read` of its rows occur.
    fn rows(&mut self, key: Key, entries: u64, read: u64, batch: Batch) -> Value {
        let width = self.sizes.embeddings.width;
        let rows = TableRows {
            numbers: batch.tokens().saturating_mul(width),
            trained: self.sizes.full,
            half: self.sizes.half,
        };
        let numbers = |entries: u64| entries.saturating_mul(width);
        let read = numbers(read.min(entries));
        self.tape.table(key, numbers(entries), read, rows)
    }

    /// A LayerNorm without dropout and bias.
    fn norm(&self) -> Norm {
        Norm {
            trained: self.sizes.biases,
            ..Norm::default()
        }
    }

    /// Rows of the table of distances that a batch reads.
    pub(super) fn span(&self, batch: Batch) -> u64 {
        let length = usize::try_from(batch.length).unwrap_or(usize::MAX);
        let distances = self.sizes.distances.as_ref();
        distances.map_or(0, |distances| 2 * distances.config.span_of(length) as u64)
    }

    /// The embeddings of the distances that a batch has.
    pub(super) fn distances(&mut self, batch: Batch) -> Option<Value> {
        let (sizes, span) = (self.sizes, self.span(batch));
        let distances = sizes.distances.as_ref()?;
        let numbers = span.saturating_mul(sizes.hidden);
        // A part of the table as it is, or in f32.
        let held = if sizes.half { numbers } else { 0 };
        let rows = TableRows {
            numbers: held,
            trained: sizes.full,
            half: false,
        };
        let whole = distances.entries.saturating_mul(sizes.hidden);
        let mut x = self.tape.table(Key::Distances, whole, whole, rows);
        x.numbers = numbers;
        if !distances.config.normalised {
            return Some(x);
        }
        let norm = self.norm();
        Some(self.tape.norm(x, None, sizes.hidden, norm))
    }

    /// Layer `i` and, behind the first, the convolution; of the last layer token 0 alone.
    pub(super) fn layer(
        &mut self,
        i: usize,
        x: Value,
        batch: Batch,
        distances: Option<&Value>,
    ) -> Value {
        let sizes = self.sizes;
        let last = i + 1 == sizes.layers.len();
        let Some(convolution) = sizes.convolution.as_ref().filter(|_| i == 0) else {
            return self.block(i, x, batch, distances, last);
        };
        let output = self.block(i, x.clone(), batch, distances, false);
        let linear = &convolution.linear;
        let near = convolution.width.saturating_mul(x.numbers);
        let weight = linear.inputs.saturating_mul(linear.outputs);
        let stored = if sizes.half { weight / 2 } else { weight };
        let matrix = self.tape.fresh(stored, Part::Buffers);
        let x = self.tape.map(x, near);
        let x = self
            .tape
            .linear(x, linear, batch.tokens(), true, Some(matrix));
        let x = self.tape.activate(x, convolution.activation, false);
        let norm = self.norm();
        let output = self.tape.norm(x, Some(output), sizes.hidden, norm);
        match last {
            true => self.first(output, batch),
            false => output,
        }
    }

    /// Attention and feed-forward; `first`: of token 0 alone.
    fn block(
        &mut self,
        i: usize,
        x: Value,
        batch: Batch,
        distances: Option<&Value>,
        first: bool,
    ) -> Value {
        let layer = &self.sizes.layers[i];
        let (tokens, hidden) = (batch.tokens(), self.sizes.hidden);
        let (rows, queries) = match first {
            true => (batch.rows, self.first(x.clone(), batch)),
            false => (tokens, x.clone()),
        };
        let of = |span| Attention {
            rows: batch.rows,
            queries: if first { 1 } else { batch.length },
            keys: batch.length,
            heads: self.sizes.heads,
            span,
            hidden,
        };
        let all = !first || batch.length == 1;
        let x = if all && layer.positions.is_empty() {
            let linears = [&layer.query, &layer.key, &layer.value];
            self.tape.self_attention(x, linears, of(0))
        } else {
            let q = (self.tape).linear(queries.clone(), &layer.query, rows, true, None);
            if layer.positions.is_empty() {
                let linears = [&layer.key, &layer.value];
                self.tape.first_attention(q, x, linears, of(0))
            } else {
                let k = self.tape.linear(x.clone(), &layer.key, tokens, true, None);
                let v = self.tape.linear(x, &layer.value, tokens, true, None);
                let mut inputs = vec![q, k, v];
                inputs.extend(self.positions(i, batch, distances));
                let span = if inputs.len() > 3 {
                    self.span(batch)
                } else {
                    0
                };
                self.tape.attention(inputs, of(span))
            }
        };
        let norm = Norm {
            drops: self.sizes.drops,
            bias: self.sizes.biases,
            ..self.norm()
        };
        let x = self.tape.linear(x, &layer.attended, rows, false, None);
        let residual = self.tape.norm(x, Some(queries), hidden, norm);
        // The exact GELU adds the bias itself.
        let fused = self.sizes.activation == Activation::Gelu;
        let x = self
            .tape
            .linear(residual.clone(), &layer.up, rows, !fused, None);
        let trained = self.sizes.biases && fused;
        let x = self.tape.activate(x, self.sizes.activation, trained);
        let x = self.tape.linear(x, &layer.down, rows, false, None);
        self.tape.norm(x, Some(residual), hidden, norm)
    }

    /// Position keys and position queries of a layer.
    fn positions(&mut self, i: usize, batch: Batch, distances: Option<&Value>) -> Vec<Value> {
        let linears = &self.sizes.layers[i].positions;
        let Some(distances) = distances.filter(|_| !linears.is_empty()) else {
            return Vec::new();
        };
        let mut table = distances.clone();
        if self.sizes.drops {
            table = self.tape.dropout(table);
        }
        let span = self.span(batch);
        let mut made = Vec::new();
        for linear in linears {
            made.push(self.tape.linear(table.clone(), linear, span, true, None));
        }
        self.tape.release(table);
        made
    }

    /// Token 0 of every row.
    fn first(&mut self, x: Value, batch: Batch) -> Value {
        let numbers = batch.rows.saturating_mul(self.sizes.hidden);
        self.tape.map(x, numbers)
    }

    /// The logits.
    pub(super) fn head(&mut self, x: Value, batch: Batch) -> Value {
        let sizes = self.sizes;
        let x = self.tape.linear(x, &sizes.dense, batch.rows, true, None);
        let x = self.tape.activate(x, Activation::Tanh, false);
        self.tape.linear(x, &sizes.output, batch.rows, true, None)
    }
}
