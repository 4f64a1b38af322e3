//! The parser through its public interface: golden directories, properties, cost.

mod golden;
mod properties;
mod show;
mod words;
