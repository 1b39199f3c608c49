//! The tools that ship, run by a gateway with the policy that ships.
