//! One policy decision, with few and with many grants.
