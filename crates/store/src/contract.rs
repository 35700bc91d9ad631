//! What every [`Store`](crate::Store) must do, as one suite that runs over all of them.
