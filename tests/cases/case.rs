//! One test case: a stack of layers and a sequence of operations.

use std::fmt;
use std::fmt::Write;

use crate::cases::layer::Layer;
use crate::cases::op::Op;

/// A difference between what is and what should be, in words.
pub type Check = Result<(), String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Top first. The first one is the upper layer unless there is none.
    pub layers: Vec<Layer>,
    pub ops: Vec<Op>,
    /// The whole tree is compared after so many operations.
    pub compare_every: usize,
}

impl Case {
    /// The code of a regression test.
    pub fn code(&self, setup: &dyn fmt::Debug) -> String {
        let mut code = String::new();
        self.write_code(setup, &mut code).unwrap();
        code
    }

    fn write_code(&self, setup: &dyn fmt::Debug, f: &mut String) -> fmt::Result {
        writeln!(f, "check(\n    {setup:?},")?;
        writeln!(f, "    vec![")?;
        for layer in &self.layers {
            writeln!(f, "        layer(vec![")?;
            for item in &layer.items {
                let code = format!("{item:?}").replace(", [", ", vec![");
                writeln!(f, "            {code},")?;
            }
            writeln!(f, "        ]){},", layer.extra_code())?;
        }
        writeln!(f, "    ],\n    &[")?;
        for op in &self.ops {
            writeln!(f, "        {op:?},")?;
        }
        write!(f, "    ],\n);")?;
        if self.compare_every > 1 {
            write!(f, " // trees compared every {} operations", self.compare_every)?;
        }
        Ok(())
    }
}
