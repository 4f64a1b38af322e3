//! Heredoc markers: `<<EOF`, `<<-'EOF'`, `3<<EOF`.

/// Whether `text` is nothing but one heredoc marker.
pub(crate) fn is_marker(text: &str) -> bool {
    text.trim().starts_with("<<")
}
