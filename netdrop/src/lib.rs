//! netdrop.
