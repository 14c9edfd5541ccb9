//! Attacks: by who made a layer, who owned the upper layer before, who works in the mount, and by other users of the
//! machine. Nothing outside the layers is ever opened or changed, one bad object does not harm its neighbours, and the
//! daemon lives on.

mod callers;
