/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Track a connection by its packets in both directions: when the backend answered, when it sent its
 * first byte, when and why the connection ended; for UDP, the first byte only. The sequence number
 * of a RST is not checked. Include lblatency.bpf.h first.
 */
#ifndef LBL_TCP_TRACK_H
#define LBL_TCP_TRACK_H

#include "idle.h"
#include "packet.h"

enum lbl_track_state {
	LBL_TRACK_SYNACK = 1, /* the backend has answered */
	LBL_TRACK_ESTABLISHED = 2, /* the client has acknowledged the SYN-ACK */
	LBL_TRACK_CLIENT_DATA = 4,
	LBL_TRACK_BACKEND_DATA = 8,
	LBL_TRACK_CLIENT_FIN = 16,
	LBL_TRACK_BACKEND_FIN = 32,
	LBL_TRACK_CLIENT_FIN_ACKED = 64,
	LBL_TRACK_BACKEND_FIN_ACKED = 128,
};

/* Zero it for a new connection, and set `isn`. */
struct lbl_track {
	__u64 closing_ns; /* first FIN or RST; 0 = none yet */
	__u32 state; /* enum lbl_track_state, modified by atomic OR */
	__u32 connect_us; /* 0 = no SYN-ACK yet */
	__u32 first_byte_us; /* 0 = none yet */
	__u32 isn; /* the client's initial sequence number */
	__u32 client_fin; /* the acknowledgement number of each FIN */
	__u32 backend_fin;
};

/* Why a connection has ended: enum lbl_reason, and the event's flags from this bit on. */
#define LBL_ENDED_FLAGS 8

static __always_inline void lbl_track_mark(struct lbl_track *track, __u32 bits)
{
	/* Atomic, since the two directions may run on two CPUs. */
	__sync_fetch_and_or(&track->state, bits);
}

/* Return whether a packet on a known tuple starts a new connection: a SYN that is no retransmit. */
static __always_inline bool lbl_track_reused(const struct lbl_track *track,
					     const struct lbl_packet *p)
{
	return (p->flags & (LBL_TCP_SYN | LBL_TCP_ACK)) == LBL_TCP_SYN && track->isn != p->seq;
}

/* Return whether the packet has the first payload of its direction. */
static __always_inline bool lbl_track_first_data(const struct lbl_track *track,
						 const struct lbl_packet *p, bool reply)
{
	__u32 data = reply ? LBL_TRACK_BACKEND_DATA : LBL_TRACK_CLIENT_DATA;

	return p->payload && !(track->state & data);
}

/*
 * Return the time of a packet, ns, from the exact clock if it may be reported. The coarse clock is
 * up to a tick (4 ms) late, too much for the last packet of a connection: any UDP packet, and the
 * acknowledgement of the last FIN.
 */
static __always_inline __u64 lbl_track_now(const struct lbl_track *track,
					   const struct lbl_packet *p, bool reply)
{
	if (p->key.protocol == IPPROTO_UDP || lbl_track_first_data(track, p, reply) ||
	    p->flags & (LBL_TCP_SYN | LBL_TCP_FIN | LBL_TCP_RST) ||
	    track->state & (LBL_TRACK_CLIENT_FIN | LBL_TRACK_BACKEND_FIN))
		return lbl_now();
	return bpf_ktime_get_coarse_ns();
}

/* Record a FIN, and the acknowledgement of the other side's FIN. */
static __always_inline void lbl_track_fin(struct lbl_track *track, const struct lbl_packet *p,
					  __u64 now, bool reply)
{
	__u32 fin = reply ? LBL_TRACK_BACKEND_FIN : LBL_TRACK_CLIENT_FIN;
	__u32 other_fin = reply ? LBL_TRACK_CLIENT_FIN : LBL_TRACK_BACKEND_FIN;
	__u32 other_acked = reply ? LBL_TRACK_CLIENT_FIN_ACKED : LBL_TRACK_BACKEND_FIN_ACKED;
	__u32 waited = reply ? track->client_fin : track->backend_fin;

	if (p->flags & LBL_TCP_FIN && !(track->state & fin)) {
		*(reply ? &track->backend_fin : &track->client_fin) = p->seq + p->payload + 1;
		if (!track->closing_ns)
			track->closing_ns = now;
		lbl_track_mark(track, fin);
	}
	if (p->flags & LBL_TCP_ACK && track->state & other_fin && !(track->state & other_acked) &&
	    (__s32)(p->ack - waited) >= 0)
		lbl_track_mark(track, other_acked);
}

static __always_inline __u32 lbl_track_tcp(struct lbl_track *track, const struct lbl_packet *p,
					   __u64 created_ns, __u64 now, bool reply)
{
	const __u32 acked = LBL_TRACK_CLIENT_FIN_ACKED | LBL_TRACK_BACKEND_FIN_ACKED;
	__u32 state = track->state;

	if (p->flags & LBL_TCP_RST) {
		if (!track->closing_ns)
			track->closing_ns = now;
		if (!(state & LBL_TRACK_SYNACK))
			return LBL_REASON_CONNECT_FAILED;
		if (!reply && !(state & (LBL_TRACK_CLIENT_DATA | LBL_TRACK_BACKEND_DATA)))
			return LBL_REASON_RST | LBL_FLAG_PROBE << LBL_ENDED_FLAGS;
		return LBL_REASON_RST;
	}
	if (reply && !(state & LBL_TRACK_SYNACK) && p->flags & LBL_TCP_SYN &&
	    p->flags & LBL_TCP_ACK) {
		track->connect_us = lbl_span_us(now - created_ns);
		lbl_track_mark(track, LBL_TRACK_SYNACK);
	}
	if (!reply && state & LBL_TRACK_SYNACK && !(state & LBL_TRACK_ESTABLISHED) &&
	    p->flags & LBL_TCP_ACK)
		lbl_track_mark(track, LBL_TRACK_ESTABLISHED);
	if (p->flags & LBL_TCP_FIN || state & (LBL_TRACK_CLIENT_FIN | LBL_TRACK_BACKEND_FIN)) {
		lbl_track_fin(track, p, now, reply);
		if ((track->state & acked) == acked)
			return LBL_REASON_FIN;
	}
	return 0;
}

/*
 * Update the state with a packet. `now` is from lbl_track_now(); `reply`: the packet goes to the
 * client. Returns 0, or why the connection has ended, for lbl_track_end().
 */
static __always_inline __u32 lbl_track_packet(struct lbl_track *track, const struct lbl_packet *p,
					      __u64 created_ns, __u64 now, bool reply)
{
	/* Anything else before the SYN-ACK is of an earlier connection of this tuple. */
	if (p->key.protocol == IPPROTO_TCP && !(track->state & LBL_TRACK_SYNACK) &&
	    !(p->flags & (LBL_TCP_SYN | LBL_TCP_RST)))
		return 0;
	if (lbl_track_first_data(track, p, reply)) {
		if (reply)
			track->first_byte_us = lbl_span_us(now - created_ns);
		lbl_track_mark(track, reply ? LBL_TRACK_BACKEND_DATA : LBL_TRACK_CLIENT_DATA);
	}
	if (p->key.protocol == IPPROTO_UDP)
		return 0;
	return lbl_track_tcp(track, p, created_ns, now, reply);
}

/* Return whether the handshake is incomplete. */
static __always_inline bool lbl_track_half_open(const struct lbl_track *track, __u8 protocol)
{
	return protocol != IPPROTO_UDP && !(track->state & LBL_TRACK_ESTABLISHED);
}

/*
 * Return why a connection that had its last packet at `last_seen_ns` has ended by `now_ns`: enum
 * lbl_reason, or 0 if it goes on.
 */
static __always_inline __u32 lbl_track_idle(const struct lbl_track *track, __u8 protocol,
					    __u64 last_seen_ns, __u64 now_ns,
					    const struct lbl_idle *idle)
{
	bool half_open = lbl_track_half_open(track, protocol);
	__u64 limit = idle->idle_ns;

	if (protocol == IPPROTO_UDP)
		limit = idle->udp_idle_ns;
	else if (half_open)
		limit = idle->half_open_ns;
	else if (track->closing_ns)
		limit = idle->closing_ns;
	/* Signed: another CPU may have recorded a packet after this one read the clock. */
	if ((__s64)(now_ns - last_seen_ns) < (__s64)limit)
		return 0;
	return half_open ? LBL_REASON_CONNECT_FAILED : LBL_REASON_TIMEOUT;
}

/*
 * Set flags and short times of a closed event whose protocol and timestamp_ns are set. UDP has no
 * connect and no closing, so these stay 0 (not measured).
 */
static __always_inline void lbl_track_end(const struct lbl_track *track, __u32 ended,
					  struct lbl_event *event)
{
	__s64 closing_ns = event->timestamp_ns - track->closing_ns;

	event->flags |= ended >> LBL_ENDED_FLAGS;
	event->first_byte_us = track->first_byte_us ? track->first_byte_us : LBL_SPAN_NONE;
	if (event->protocol == IPPROTO_UDP)
		return;
	event->connect_us = track->connect_us ? track->connect_us : LBL_SPAN_NONE;
	event->closing_us = LBL_SPAN_NONE;
	if (track->closing_ns)
		event->closing_us = lbl_span_us(closing_ns > 0 ? closing_ns : 0);
}

#endif
