//! What fine-tuning does to a classifier: attach adapters, choose what is trained, merge, and
//! exchange adapters with files.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use lowburn_lora::{
    Adapter, AdapterFile, Factors, HostTensor, Linear, LoraConfig, LoraInit, ResolvedAdapter,
};

use crate::ModelError;
use crate::architecture::is_head;
use crate::classifier::{Head, SequenceClassifier};
use crate::disentangled::LoraPositionBranch;
use crate::named::{NamedMapper, NamedVisitor, is_transposed, map_named, visit_named};
use crate::random::name_key;

/// Which parameters are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The adapters' factors and the head.
    Lora,
    /// Everything.
    Full,
    /// The head.
    Head,
    /// The biases and the head (Ben Zaken et al. 2021; the BitFit row of the LoRA paper's table 2).
    /// LayerNorm's biases count, its scales do not.
    Bitfit,
}

impl Method {
    /// True if the parameter of that name is trained.
    pub fn trains(self, name: &str) -> bool {
        match self {
            Self::Full => true,
            Self::Head => is_head(name),
            Self::Lora => is_head(name) || is_factor(name),
            Self::Bitfit => is_head(name) || name.ends_with(".bias"),
        }
    }
}

/// True for the name of an adapter's factor.
pub fn is_factor(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}

/// What happens to the head's tensors of an adapter file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPolicy {
    /// All of the head must be in the file, with the model's shapes; DeBERTa-v2's pooler may be
    /// missing as a whole, and the caller sees to that ([`SequenceClassifier::lacks_pooler`]).
    Required,
    /// Tensors of other shapes (another number of labels) are left as they are in the model.
    WhereShapesAgree,
}

/// Where the names of DeBERTa-v2's pooler begin.
const POOLER: &str = "pooler.";

impl SequenceClassifier {
    /// True if these tensors of a head are without the pooler that the model has.
    pub fn lacks_pooler(&self, saved: &BTreeMap<String, HostTensor>) -> bool {
        matches!(self.head, Head::Pooled(_)) && !saved.keys().any(|name| name.starts_with(POOLER))
    }

    /// Calls `work` with every linear layer and its name, head last.
    pub fn each_linear(&mut self, work: &mut dyn FnMut(&str, &mut Linear)) {
        let architecture = self.architecture;
        let prefix = architecture.prefix();
        if let Some(projection) = &mut self.backbone.embeddings.embed_proj {
            work(&format!("{prefix}.embeddings.embed_proj"), projection);
        }
        for (i, layer) in self.backbone.encoder.layer.iter_mut().enumerate() {
            let name = format!("{prefix}.encoder.layer.{i}");
            let attention = &mut layer.attention;
            let own = &mut attention.self_attention;
            for (part, linear) in [
                (architecture.projection("query"), Some(&mut own.query)),
                (architecture.projection("key"), Some(&mut own.key)),
                (architecture.projection("value"), Some(&mut own.value)),
            ]
            .into_iter()
            .chain(own.position.iter_mut().flat_map(|position| {
                [
                    ("pos_key_proj", position.pos_key_proj.as_mut()),
                    ("pos_query_proj", position.pos_query_proj.as_mut()),
                ]
            })) {
                if let Some(linear) = linear {
                    work(&format!("{name}.attention.self.{part}"), linear);
                }
            }
            work(
                &format!("{name}.attention.output.dense"),
                &mut attention.output.dense,
            );
            work(
                &format!("{name}.intermediate.dense"),
                &mut layer.intermediate.dense,
            );
            work(&format!("{name}.output.dense"), &mut layer.output.dense);
        }
        match &mut self.head {
            Head::Dense(head) => {
                work("classifier.dense", &mut head.dense);
                work("classifier.out_proj", &mut head.out_proj);
            }
            Head::Pooled(head) => {
                work("pooler.dense", &mut head.pooler.dense);
                work("classifier", &mut head.classifier);
            }
        }
    }

    /// The names of the encoder's linear layers, which adapters can target.
    pub fn linear_names(&self) -> Vec<String> {
        struct Names(Vec<String>);
        impl NamedVisitor for Names {
            fn visit<const D: usize>(&mut self, name: &str, _: &Param<Tensor<D>>) {
                let linear = is_transposed(name, D) && !is_head(name) && !is_factor(name);
                let module = name.strip_suffix(".weight").filter(|_| linear);
                self.0.extend(module.map(str::to_owned));
            }
        }
        let mut names = Names(Vec::new());
        visit_named(self, &mut names);
        names.0
    }

    /// Sets what adapters on projections that positions share do to positions. It means something
    /// for DeBERTa-v2 with `share_att_key` only.
    pub fn set_position_branch(&mut self, branch: LoraPositionBranch) {
        for layer in &mut self.backbone.encoder.layer {
            if let Some(position) = &mut layer.attention.self_attention.position {
                position.adapted = branch == LoraPositionBranch::Peft;
            }
        }
    }

    /// Attaches a new adapter to every layer of the plan. Factors depend on the seed and on the
    /// layer's name, not on the order.
    pub fn attach(&mut self, plan: &BTreeMap<String, ResolvedAdapter>, init: LoraInit, seed: u64) {
        self.each_linear(&mut |name, linear| {
            if let Some(settings) = plan.get(name) {
                linear.attach(settings, init, name_key(seed, name));
            }
        });
    }

    /// Makes exactly the method's parameters trainable.
    pub fn set_trainable(self, method: Method) -> Self {
        struct Trainable(Method);
        impl NamedMapper for Trainable {
            fn map<const D: usize>(&mut self, name: &str, p: Param<Tensor<D>>) -> Param<Tensor<D>> {
                p.set_require_grad(self.0.trains(name))
            }
        }
        map_named(self, &mut Trainable(method))
    }

    /// The parameters whose names `wanted` accepts, in the layout of Hugging Face's files.
    pub fn host_tensors(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, HostTensor> {
        struct Collect<F>(F, BTreeMap<String, HostTensor>);
        impl<F: Fn(&str) -> bool> NamedVisitor for Collect<F> {
            fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
                if (self.0)(name) {
                    self.1.insert(name.to_owned(), to_host(name, param.val()));
                }
            }
        }
        let mut collect = Collect(wanted, BTreeMap::new());
        visit_named(self, &mut collect);
        collect.1
    }

    /// Replaces parameters by name, in the layout of Hugging Face's files.
    ///
    /// # Errors
    /// A name that the model does not have, or another shape.
    pub fn set_host_tensors(
        self,
        tensors: &BTreeMap<String, HostTensor>,
    ) -> Result<Self, ModelError> {
        struct Replace<'a> {
            tensors: &'a BTreeMap<String, HostTensor>,
            done: usize,
            problem: Option<String>,
        }
        impl NamedMapper for Replace<'_> {
            fn map<const D: usize>(&mut self, name: &str, p: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(host) = self.tensors.get(name) else {
                    return p;
                };
                self.done += 1;
                let mut shape = p.lazy_shape().to_vec();
                if is_transposed(name, D) {
                    shape.reverse();
                }
                if shape != host.shape {
                    self.problem = Some(format!("{name} is {:?}, expected {shape:?}", host.shape));
                    return p;
                }
                let trainable = p.is_require_grad();
                let tensor = from_host::<D>(name, host, &p.lazy_device());
                Param::initialized(p.id, tensor.set_require_grad(trainable))
            }
        }
        let mut replace = Replace {
            tensors,
            done: 0,
            problem: None,
        };
        let model = map_named(self, &mut replace);
        if replace.done < tensors.len() {
            let known = model.host_names();
            let unknown = tensors.keys().find(|name| !known.contains(name));
            replace.problem = unknown.map(|name| format!("{name} is not a tensor of this model"));
        }
        match replace.problem {
            Some(problem) => Err(ModelError::Adapter { problem }),
            None => Ok(model),
        }
    }

    /// Takes all the tensors that a method trains, named as in Hugging Face's files.
    ///
    /// # Errors
    /// A tensor is missing, is of another shape, or is not one that the method trains.
    pub fn apply_trained(
        self,
        tensors: &BTreeMap<String, HostTensor>,
        method: Method,
    ) -> Result<Self, ModelError> {
        let names = self.host_names();
        let trained = || names.iter().filter(|name| method.trains(name));
        let missing = trained().find(|name| !tensors.contains_key(*name));
        let surplus = tensors.keys().find(|name| !method.trains(name));
        match (missing, surplus) {
            (Some(name), _) => Err(ModelError::Adapter {
                problem: format!(
                    "it has no {name}, which {method} trains; it belongs to another base model"
                ),
            }),
            (None, Some(name)) => Err(ModelError::Adapter {
                problem: format!("{name} is nothing that {method} trains"),
            }),
            (None, None) => self.set_host_tensors(tensors),
        }
    }

    fn host_names(&self) -> Vec<String> {
        struct Names(Vec<String>);
        impl NamedVisitor for Names {
            fn visit<const D: usize>(&mut self, name: &str, _: &Param<Tensor<D>>) {
                self.0.push(name.to_owned());
            }
        }
        let mut names = Names(Vec::new());
        visit_named(self, &mut names);
        names.0
    }

    /// Attaches the adapters of a file and takes its head.
    ///
    /// Factors for layers of the head, which PEFT writes for DeBERTa-v2's pooler when all linear
    /// layers are targets, are folded into these layers: a head is trained as it is.
    ///
    /// # Errors
    /// The file is for another model (names, shapes), or the head is missing where it is required.
    pub fn apply_adapter(
        mut self,
        file: &AdapterFile,
        head: HeadPolicy,
    ) -> Result<Self, ModelError> {
        let own = self.host_names();
        let on_head: Vec<String> = file
            .factors
            .keys()
            .filter(|module| is_head(module) && own.contains(&format!("{module}.weight")))
            .cloned()
            .collect();
        let plan = file.plan(&[self.linear_names(), on_head.clone()].concat())?;
        let mut problem = None;
        self.each_linear(&mut |name, linear| {
            if is_head(name) {
                return;
            }
            let (Some(settings), Some(factors)) = (plan.get(name), file.factors.get(name)) else {
                return;
            };
            let [inputs, outputs] = linear.sizes();
            if factors.sizes() != Some((settings.rank, inputs, outputs)) {
                problem.get_or_insert_with(|| {
                    format!(
                        "{name}: lora_A is {:?} and lora_B {:?}, but the layer has {inputs} inputs, \
                         {outputs} outputs and the configuration rank {}; it belongs to another base model",
                        factors.a.shape, factors.b.shape, settings.rank
                    )
                });
                return;
            }
            let device = linear.weight.lazy_device();
            let a = from_host::<2>(".lora_A.weight", &factors.a, &device);
            let b = from_host::<2>(".lora_B.weight", &factors.b, &device);
            linear.adapter = Some(Adapter::from_factors(a, b, settings));
        });
        if let Some(problem) = problem {
            return Err(ModelError::Adapter { problem });
        }
        self.apply_head(&file.saved, head)?.fold(file, &on_head)
    }

    /// Adds an adapter's updates to the weights of these modules.
    fn fold(self, file: &AdapterFile, modules: &[String]) -> Result<Self, ModelError> {
        let weights = self.host_tensors(|name| {
            let module = name.strip_suffix(".weight");
            module.is_some_and(|module| modules.iter().any(|wanted| wanted == module))
        });
        let mut folded = BTreeMap::new();
        for (name, mut weight) in weights {
            let module = name.trim_end_matches(".weight");
            let delta = file
                .delta(module)
                .filter(|delta| delta.shape == weight.shape);
            let Some(delta) = delta else {
                return Err(ModelError::Adapter {
                    problem: format!(
                        "its factors for {module} do not make a matrix of {:?}; it belongs to another base model",
                        weight.shape
                    ),
                });
            };
            for (weight, delta) in weight.data.iter_mut().zip(&delta.data) {
                *weight += delta;
            }
            folded.insert(name, weight);
        }
        self.set_host_tensors(&folded)
    }

    /// Takes the head's tensors, named as in Hugging Face's files.
    ///
    /// # Errors
    /// A tensor is missing or misshapen where the whole head is required, or is not of the head.
    pub fn apply_head(
        self,
        saved: &BTreeMap<String, HostTensor>,
        policy: HeadPolicy,
    ) -> Result<Self, ModelError> {
        let own = self.host_tensors(is_head);
        let mut taken = BTreeMap::new();
        for (name, tensor) in saved {
            match own.get(name) {
                Some(mine) if mine.shape == tensor.shape => {
                    taken.insert(name.clone(), tensor.clone());
                }
                Some(mine) if policy == HeadPolicy::Required => {
                    return Err(ModelError::Adapter {
                        problem: format!(
                            "{name} is {:?}, expected {:?}; it was trained for another number of \
                             labels or another base model",
                            tensor.shape, mine.shape
                        ),
                    });
                }
                Some(_) => {}
                None => {
                    return Err(ModelError::Adapter {
                        problem: format!("{name} is not a tensor of the head"),
                    });
                }
            }
        }
        // PEFT saves no pooler unless it is told to; without any of it the model keeps its own.
        let pooled = saved.keys().any(|name| name.starts_with(POOLER));
        let missing = own
            .keys()
            .filter(|name| pooled || !name.starts_with(POOLER))
            .find(|name| !taken.contains_key(*name));
        if let (Some(name), HeadPolicy::Required) = (missing, policy) {
            return Err(ModelError::Adapter {
                problem: format!(
                    "it has no {name}: the head was not saved with it (modules_to_save), and a new \
                     head would predict at random"
                ),
            });
        }
        self.set_host_tensors(&taken)
    }

    /// The adapters and the head as a file.
    pub fn adapter_file(&self, config: &LoraConfig, base_model: Option<String>) -> AdapterFile {
        let mut file = AdapterFile::new(config.clone());
        file.base_model = base_model;
        let mut factors = self.host_tensors(is_factor);
        for name in factors.keys().cloned().collect::<Vec<_>>() {
            let Some(module) = name.strip_suffix(".lora_A.weight") else {
                continue;
            };
            let b = factors.remove(&format!("{module}.lora_B.weight"));
            let a = factors.remove(&name);
            if let (Some(a), Some(b)) = (a, b) {
                file.factors.insert(module.to_owned(), Factors { a, b });
            }
        }
        file.saved = self.host_tensors(is_head);
        file
    }

    /// Folds every adapter into its weight.
    pub fn merge(&mut self) {
        self.each_linear(&mut |_, linear| {
            linear.merge();
        });
    }
}

fn to_host<const D: usize>(name: &str, tensor: Tensor<D>) -> HostTensor {
    let tensor = if is_transposed(name, D) {
        tensor.swap_dims(0, 1)
    } else {
        tensor
    };
    let shape = tensor.dims().to_vec();
    let data = tensor.into_data().convert::<f32>();
    HostTensor::new(shape, data.try_to_vec().expect("converted to f32 above"))
}

fn from_host<const D: usize>(
    name: &str,
    host: &HostTensor,
    device: &burn::tensor::Device,
) -> Tensor<D> {
    let data = TensorData::new(host.data.clone(), host.shape.clone());
    let tensor = Tensor::<D>::from_data(data, device);
    if is_transposed(name, D) {
        tensor.swap_dims(0, 1)
    } else {
        tensor
    }
}
