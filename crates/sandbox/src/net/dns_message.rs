//! Reading DNS messages from strangers.
