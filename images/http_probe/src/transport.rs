//! One request through the sandbox's HTTP (`wasi:http` 0.2). It follows no redirect, and the gateway refuses what is not listed.

use std::io::Read;
use std::time::{Duration, Instant};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingResponse, Method as WasiMethod, OutgoingRequest, RequestOptions, Scheme as WasiScheme,
};

use crate::probe::{Arguments, Method, Response, Scheme};

/// Both end before the tool's deadline does, so that a probe says what was slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the request and reads at most `max_body` bytes of the answer.
///
/// # Errors
/// One line for the caller: why no answer came.
pub fn send(arguments: &Arguments) -> Result<Response, String> {
    let request = request(arguments)?;
    let begun = Instant::now();
    let future = outgoing_handler::handle(request, Some(options()?)).map_err(|code| reason(&code))?;
    future.subscribe().block();
    let answer = future.get().and_then(Result::ok).ok_or("the sandbox gave no answer")?.map_err(|code| reason(&code))?;
    let latency = begun.elapsed();
    let headers = answer.headers().entries();
    let limit = if arguments.method == Method::Head { 0 } else { arguments.max_body };
    let (body, body_truncated) = body(&answer, limit)?;
    Ok(Response { status: answer.status(), latency, headers, body, body_truncated })
}

fn request(arguments: &Arguments) -> Result<OutgoingRequest, String> {
    let refused = |part: &str| format!("the sandbox did not take the {part}");
    let headers =
        Fields::from_list(&[("user-agent".into(), b"mayfly-http-probe/1".to_vec()), ("accept".into(), b"*/*".to_vec())])
            .map_err(|_| refused("headers"))?;
    let request = OutgoingRequest::new(headers);
    let method = match arguments.method {
        Method::Get => WasiMethod::Get,
        Method::Head => WasiMethod::Head,
    };
    let scheme = match arguments.scheme {
        Scheme::Http => WasiScheme::Http,
        Scheme::Https => WasiScheme::Https,
    };
    request.set_method(&method).map_err(|()| refused("method"))?;
    request.set_scheme(Some(&scheme)).map_err(|()| refused("scheme"))?;
    request.set_authority(Some(&arguments.authority())).map_err(|()| refused("host"))?;
    request.set_path_with_query(Some(&arguments.path)).map_err(|()| refused("path"))?;
    Ok(request)
}

fn options() -> Result<RequestOptions, String> {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).ok();
    let options = RequestOptions::new();
    options
        .set_connect_timeout(nanos(CONNECT_TIMEOUT))
        .and_then(|()| options.set_first_byte_timeout(nanos(FIRST_BYTE_TIMEOUT)))
        .and_then(|()| options.set_between_bytes_timeout(nanos(FIRST_BYTE_TIMEOUT)))
        .map_err(|()| "the sandbox did not take the timeouts")?;
    Ok(options)
}

/// The body up to `limit`, and whether there was more. With a limit of 0 it is not read at all.
fn body(answer: &IncomingResponse, limit: usize) -> Result<(Vec<u8>, bool), String> {
    let mut bytes = Vec::new();
    if limit == 0 {
        return Ok((bytes, false));
    }
    let body = answer.consume().map_err(|()| "the sandbox gave no body")?;
    let stream = body.stream().map_err(|()| "the sandbox gave no body")?;
    let wanted = u64::try_from(limit).map_or(u64::MAX, |limit| limit + 1);
    stream.take(wanted).read_to_end(&mut bytes).map_err(|error| format!("the body broke off: {error}"))?;
    let truncated = bytes.len() > limit;
    bytes.truncate(limit);
    Ok((bytes, truncated))
}

fn reason(code: &ErrorCode) -> String {
    let known = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            "this tool may not connect there: `network` in its tool.yaml does not list it"
        }
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) => "the name does not resolve",
        ErrorCode::ConnectionRefused => "the connection was refused",
        ErrorCode::ConnectionTimeout => "no connection within 3 s",
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => "no answer within 5 s",
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => "the connection broke off",
        ErrorCode::DestinationNotFound | ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "the host cannot be reached"
        }
        ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError | ErrorCode::TlsAlertReceived(_) => {
            "there is no trusted TLS connection to it: look at its certificate"
        }
        ErrorCode::HttpProtocolError => "it does not speak HTTP",
        other => return format!("the request failed: {other:?}").replace('\n', " "),
    };
    known.into()
}
