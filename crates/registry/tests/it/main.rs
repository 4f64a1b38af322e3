//! The client against registries on loopback: proper ones, hostile ones, and Debian's.
//!
//! | what a registry does | where |
//! | --- | --- |
//! | manifests that are web pages, of another digest, ambiguous | hostile::manifests_that_are_none_are_refused, hostile::manifests_of_another_digest_are_refused |
//! | blobs of other bytes, encoded, too long, cut, endless, of a false length | hostile::blobs_*, hostile::bodies_that_end_early_are_asked_for_again |
//! | silence, one byte at a time, headers without bounds, another protocol | hostile::silence_and_dripping_end_at_their_limits, hostile::headers_without_bounds_are_refused |
//! | 500 for ever or for a while, 429 with any `Retry-After` | hostile::passing_failures_are_tried_again_as_the_server_asks, hostile::lasting_failures_end_with_the_servers_words |
//! | ranges ignored, from elsewhere, refused | blobs::a_server_without_ranges_*, blobs::a_part_from_another_offset_*, blobs::a_lawful_range_* |
//! | redirects in loops, in chains, without TLS, inward, to files, to other hosts and back | redirects |
//! | names that change their address | redirects::a_name_that_changes_its_address_gains_nothing |
//! | realms elsewhere, without TLS, of files, with line breaks; tokens that are none; 401 for ever | login |
//! | who sees which credentials | four_hosts |
//! | certificates that prove nothing, old TLS | tls |
//! | uploads that are elsewhere, at another offset, joined wrongly, gone; mounts refused; other digests announced | push |
//! | lists without end or at other hosts | tags, referrers |
//! | layers with `urls`, tags that move meanwhile, indexes within indexes | blobs, resolve |
//! | mirrors that lie, break off or are gone; proxies | hosts |
//! | replies with terminal escapes, referrers in a circle | commands_copy of the program's tests |

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test binary through and through")]

mod blobs;
mod debian;
mod four_hosts;
mod hostile;
mod hosts;
mod login;
mod push;
mod redirects;
mod referrers;
mod resolve;
mod tags;
mod tls;
mod world;
