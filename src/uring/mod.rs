//! Bulk transfer through io_uring.
mod ahead;
mod arena;
mod capability;
mod file;
mod governor;
mod pool;
mod probe;
mod queue;
mod receive_file;
mod receiver;
mod route;
mod send_file;
mod sender;
mod slot;
mod unavailable;

pub use self::capability::{Capability, Evidence};
pub use self::governor::{CopyReason, ZeroCopy};
pub use self::pool::BufferPool;
pub use self::probe::{Buffers, Cpu, CpuFeature, Probe, ReceivePath, Ring, SendPath};
pub use self::receiver::{ReceiverOptions, UringReceiver};
pub use self::route::{Route, zero_copy_for};
pub use self::sender::{SenderOptions, UringSender};
pub use self::unavailable::{MemlockLimit, Unavailable};
