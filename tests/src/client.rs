//! A JSON-RPC client that checks every answer against what the daemon itself says about its methods.

use crate::schema;
use crate::transport::{Line, Transport};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;

/// What the daemon answered instead of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcError {
    /// The JSON-RPC code.
    pub code: i64,
    /// One line for the human.
    pub message: String,
    /// Context.
    pub data: Value,
}

impl RpcError {
    /// The stable name of the failure.
    ///
    /// # Panics
    /// There is none.
    pub fn kind(&self) -> &str {
        self.data["kind"]
            .as_str()
            .unwrap_or_else(|| panic!("an error without a kind: {self:?}"))
    }

    /// Reads the error object.
    pub fn read(error: &Value) -> Self {
        Self {
            code: error["code"].as_i64().expect("a code"),
            message: error["message"].as_str().expect("a message").to_owned(),
            data: error["data"].clone(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client<T: Transport = Line> {
    /// The framing below.
    pub transport: T,
    next_id: u64,
    notifications: VecDeque<Value>,
    answers: VecDeque<Value>,
}

impl Client<Line> {
    /// Connects in the line dialect.
    pub fn connect(socket: &Path) -> Self {
        Self::over(Line::new(crate::transport::open(socket)))
    }
}

impl<T: Transport> Client<T> {
    /// Speaks over `transport`.
    pub fn over(transport: T) -> Self {
        Self {
            transport,
            next_id: 1,
            notifications: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Calls a method and waits for its answer, which is checked against `rpc.discover`.
    ///
    /// # Panics
    /// There is no answer, or it is not what the method's description says.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let checked = schema::Checked::learn(self);
        let answer = self.unchecked(method, params.clone());
        checked.judge(method, &params, &answer);
        answer
    }

    /// As [`Client::call`], without the check.
    ///
    /// # Panics
    /// There is no answer.
    pub fn unchecked(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Calls a method that must succeed.
    ///
    /// # Panics
    /// It does not.
    pub fn ok(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()) {
            Ok(result) => result,
            Err(error) => panic!("{method} {params} failed: {error:?}"),
        }
    }

    /// Calls a method that must fail with that kind.
    ///
    /// # Panics
    /// It succeeds, or fails otherwise.
    pub fn fails(&mut self, method: &str, params: Value, kind: &str) -> RpcError {
        match self.call(method, params.clone()) {
            Ok(result) => {
                panic!("{method} {params} should fail with {kind}, but answered {result}")
            }
            Err(error) => {
                assert_eq!(error.kind(), kind, "{method} {params}: {error:?}");
                error
            }
        }
    }

    /// Sends a request without waiting; answers its id.
    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.transport.send(
            &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string(),
        );
        id
    }

    /// Waits for the answer to a request sent before.
    ///
    /// # Panics
    /// The connection ends first.
    pub fn answer(&mut self, id: u64) -> Result<Value, RpcError> {
        if let Some(at) = self.answers.iter().position(|a| a["id"] == json!(id)) {
            return outcome(&self.answers.remove(at).expect("just found"));
        }
        loop {
            let message = self
                .message()
                .expect("the connection ended before the answer");
            if message.get("method").is_some() {
                self.notifications.push_back(message);
            } else if message["id"] == json!(id) {
                return outcome(&message);
            } else {
                self.answers.push_back(message);
            }
        }
    }

    /// The next notification.
    ///
    /// # Panics
    /// None comes in time.
    pub fn notification(&mut self) -> Value {
        if let Some(waiting) = self.notifications.pop_front() {
            return waiting;
        }
        loop {
            let message = self
                .message()
                .expect("the connection ended before a notification");
            if message.get("method").is_some() {
                return message;
            }
            self.answers.push_back(message);
        }
    }

    /// The next message of any sort, parsed; `None` at the end.
    pub fn message(&mut self) -> Option<Value> {
        let text = self.transport.receive()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text:.200}")))
    }
}

fn outcome(answer: &Value) -> Result<Value, RpcError> {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    match answer.get("error") {
        Some(error) => Err(RpcError::read(error)),
        None => Ok(answer.get("result").expect("a result or an error").clone()),
    }
}
