//! What breaks around a whole `claviger run`.
