//! What the lab programs share.
