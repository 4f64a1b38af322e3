//! The parser through its public interface: golden directories, properties, cost.

mod golden;
mod properties;
mod scaling;
mod show;
mod words;
