//! What a person declares.
