//! Prefetch limits, as RabbitMQ reads them: `global` off sets what later consumers get each, `global` on one limit over the channel.

use crate::channel::Channel;
use crate::exception::Exception;
use crate::output::Output;

impl Channel {
    /// `basic.qos`
    pub(crate) fn qos(
        &mut self,
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), Exception> {
        if prefetch_size != 0 {
            return Err(Exception::not_implemented(format!("prefetch_size!=0 ({prefetch_size})")));
        }
        // RabbitMQ lifts the channel's limit when a limit per consumer is set after it.
        let limit = if global { prefetch_count } else { 0 };
        if !global {
            self.prefetch = prefetch_count;
        }
        if std::mem::replace(&mut self.limit, limit) != limit {
            out.push(Output::ChannelLimit { channel: self.number, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_per_consumer_or_per_channel() {
        let mut channel = Channel::new(3);
        let mut out = Vec::new();
        channel.qos(0, 10, false, &mut out).unwrap();
        assert!(out.is_empty() && channel.prefetch == 10);
        channel.qos(0, 5, true, &mut out).unwrap();
        channel.qos(0, 5, true, &mut out).unwrap();
        assert!(matches!(out[..], [Output::ChannelLimit { channel: 3, limit: 5 }]));
        assert_eq!(channel.qos(1, 0, false, &mut out).unwrap_err().text, "prefetch_size!=0 (1)");
    }
}
