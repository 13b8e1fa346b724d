//! Gives every selection of packages the same dependency features.
//!
//! Cargo unifies features over the packages that a command selects, so `cargo test -p x`,
//! `cargo xtask` and `cargo test --workspace` would each compile Burn again. The other crates take
//! this one as a dev-dependency (and xtask as a dependency), and one build serves all of them.
