//! An agent's configuration.

use std::time::Duration;

use ureq::config::Config;
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy};

/// How long one exchange may take, and how long its header may be.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Name look-up; then, again, TCP and TLS set-up.
    pub connect: Duration,
    /// From the request sent to the last byte of the response's header.
    pub first_byte: Duration,
    /// Silence within a body.
    pub stall: Duration,
    /// A whole body, if there is such a bound.
    pub body: Option<Duration>,
    /// Status line and header fields of one response.
    pub header_bytes: usize,
}

/// The configuration of an agent that follows no redirect, asks through this proxy and no other, and hands bytes on as they are.
#[must_use]
pub fn config(bounds: &Bounds, tls: TlsConfig, proxy: Option<Proxy>, user_agent: &str) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // The default would be taken from the environment, which is the program's to read.
        .proxy(proxy)
        .user_agent(user_agent)
        // Bytes are digested as they are: nobody may recode them on the way.
        .accept_encoding("identity")
        .max_response_header_size(bounds.header_bytes)
        .timeout_resolve(Some(bounds.connect))
        .timeout_connect(Some(bounds.connect))
        .timeout_send_request(Some(bounds.first_byte))
        .timeout_recv_response(Some(bounds.first_byte))
        .timeout_recv_body(bounds.body)
        .timeout_per_read(Some(bounds.stall))
        .timeout_per_write(Some(bounds.stall))
        .tls_config(tls)
        .build()
}
