//! The socket: who may connect, what may be sent, and how much of it (rpc.md §1–3).
