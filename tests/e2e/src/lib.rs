//! Real clients in five languages against real brokerd processes.
