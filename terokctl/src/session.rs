//! One run of the program: its options, its connection and its output.

use crate::args::{Command, Options, Run, Values};
use crate::connect::Connection;
use crate::env::{Env, SocketPath};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::render::{Screen, View, to_stderr};
use crate::{operation, start};
use serde_json::{Map, Value};
use std::rc::Rc;
use std::time::Instant;
use terok_proto::{Access, Method, methods};

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) env: Env,
    pub(crate) socket: SocketPath,
    pub(crate) interrupts: Rc<Interrupts>,
    pub(crate) screen: Screen,
    connection: Option<Connection>,
}

impl Session {
    pub(crate) fn new(options: Options, env: Env, interrupts: Interrupts, screen: Screen) -> Self {
        let socket = env.socket(options.socket.as_deref());
        Self {
            options,
            env,
            socket,
            interrupts: Rc::new(interrupts),
            screen,
            connection: None,
        }
    }

    /// Runs a command.
    pub(crate) fn run(&mut self, command: &Command, values: &Values<'_>) -> Result<()> {
        match &command.run {
            Run::Group => Ok(()),
            Run::Own(run) => run(self, values),
            Run::Call(view) => self.call_and_show(command.method, values.params(), view),
        }
    }

    /// Calls, follows an operation to its end, and shows the result.
    pub(crate) fn call_and_show(
        &mut self,
        method: &str,
        params: Map<String, Value>,
        view: &View,
    ) -> Result<()> {
        let params = Value::Object(params).to_string();
        if is_operation(method) && self.options.no_wait {
            let id = operation::detach(self, method, &params)?;
            return self.show_id(&id);
        }
        let result = if is_operation(method) {
            operation::run(self, method, &params)?
        } else {
            self.call(method, &params)?
        };
        self.show(&result, view)
    }

    /// Shows a result in the form that was asked for.
    pub(crate) fn show(&mut self, result: &str, view: &View) -> Result<()> {
        if self.options.json {
            self.screen.json_line(result)
        } else if self.options.flat {
            self.screen.flat(result)
        } else {
            self.screen.view(result, view)
        }
    }

    /// Shows the id of an operation that nobody waits for.
    pub(crate) fn show_id(&mut self, id: &str) -> Result<()> {
        let detached = serde_json::json!({ "operation_id": id }).to_string();
        self.show(
            &detached,
            &View::Custom(|screen, value| {
                screen.line(value["operation_id"].as_str().unwrap_or_default())
            }),
        )
    }

    /// The end of the time that a call which begins now has.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.options
            .timeout
            .and_then(|t| Instant::now().checked_add(t))
    }

    /// One call; the result's JSON.
    pub(crate) fn call(&mut self, method: &str, params: &str) -> Result<String> {
        let deadline = self.deadline();
        self.connection(deadline)?.call(method, params, deadline)
    }

    /// One call in terms of the contract's types.
    pub(crate) fn ask<M: Method>(&mut self, params: &M) -> Result<M::Result> {
        let params = serde_json::to_string(params)
            .map_err(|e| Failure::Internal(format!("cannot encode the parameters: {e}")))?;
        let result = self.call(M::INFO.name, &params)?;
        self.read(M::INFO.name, &result)
    }

    /// A result in terms of the contract's types.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        result: &str,
    ) -> Result<T> {
        serde_json::from_str(result).map_err(|error| {
            Failure::Internal(format!(
                "the answer to `{method}` is not what this version of terokctl expects: {error}"
            ))
        })
    }

    /// The connection, made when first needed.
    pub(crate) fn connection(&mut self, deadline: Option<Instant>) -> Result<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Some(start::connect(
                &self.env,
                &self.socket,
                &self.interrupts,
                !self.options.no_autostart,
                deadline,
            )?);
        }
        Ok(self.connection.as_mut().expect("made above"))
    }

    /// Forgets a connection that is lost.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Tells a failure that does not end the command, or not as it is; what helps is told elsewhere.
    pub(crate) fn complain(&self, failure: &Failure) {
        to_stderr(&failure.to_human(self.screen.error_style(), true));
    }

    /// Whether results are printed as the wire has them.
    pub(crate) fn is_wire(&self) -> bool {
        self.options.json || self.options.flat
    }

    /// Something worth knowing that is neither result nor error.
    pub(crate) fn note(&self, text: &str) {
        if !self.options.quiet {
            self.screen.note(text);
        }
    }

    /// Advice.
    pub(crate) fn hint(&self, text: &str) {
        if !self.options.quiet {
            self.screen.hint(text);
        }
    }
}

/// Whether the method runs as an operation.
pub(crate) fn is_operation(method: &str) -> bool {
    methods::find(method).is_some_and(|m| m.access == Access::Operation)
}
