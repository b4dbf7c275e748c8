//! Results against expectations and goldens.
