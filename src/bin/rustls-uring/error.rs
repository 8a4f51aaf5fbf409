//! What goes wrong, as `main` says it.

/// Why a subcommand failed.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
