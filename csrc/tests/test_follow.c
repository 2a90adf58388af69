// SPDX-License-Identifier: MIT
/* A stream whose ring is replaced at its pin; maps are files, which common.h makes the engine open. */
#include <sys/wait.h>

#include "common.h"
#include "stream/follow.h"

static char directory[] = "/tmp/lbl-follow-XXXXXX", path[64];
static struct lbl_stream *stream;
static struct lbl_holder holder;

/* A ring in a file, as its producer sees it. */
struct file_ring {
	int fd;
	struct lbl_ring ring;
};

static struct file_ring make_ring(void)
{
	struct file_ring made = { .fd = memfd_create("ring", MFD_CLOEXEC) };
	uint8_t *memory;

	REQUIRE(made.fd >= 0 && !ftruncate(made.fd, FILE_RING_SIZE));
	memory = mmap(NULL, FILE_RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, made.fd, 0);
	REQUIRE(memory != MAP_FAILED);
	made.ring = (struct lbl_ring){ .consumer_pos = (uint64_t *)(void *)memory,
				       .producer_pos = (uint64_t *)(void *)(memory + 4096),
				       .data = memory + 2 * 4096,
				       .memory = memory,
				       .mask = FILE_RING_BYTES - 1,
				       .page = 4096 };
	return made;
}

static void end_ring(struct file_ring *ring)
{
	munmap(ring->ring.memory, FILE_RING_SIZE);
	close(ring->fd);
}

static void pin(const struct file_ring *ring)
{
	char file[64];

	snprintf(file, sizeof(file), "/proc/self/fd/%d", ring->fd);
	unlink(path);
	REQUIRE(!symlink(file, path));
}

static void produce(struct file_ring *ring, uint32_t n)
{
	struct lbl_event event = closed_event(SECOND, 1);

	while (n--)
		REQUIRE(!lbl_ring_produce(&ring->ring, &event, sizeof(event)));
}

static void open_pinned(void)
{
	const struct lbl_pin at = { .path = path };
	int fd = open(path, O_RDWR | O_CLOEXEC);

	REQUIRE(fd >= 0 && !lbl_stream_open(fd, -1, &at, &holder, &stream));
	close(fd);
}

/* Stop the thread, and let this one follow in its place. */
static void follow_by_hand(void)
{
	drain_by_hand(stream);
	REQUIRE(!lbl_claims_begin(&stream->claims));
	REQUIRE(!lbl_claim_take(&stream->claims, stream->ring.consumer_pos, &holder));
	lbl_follow(stream);
}

static void close_by_hand(void)
{
	lbl_claim_drop(&stream->claims, stream->ring.consumer_pos);
	lbl_stream_free(stream);
}

static uint32_t *head_of(struct file_ring *ring)
{
	return (uint32_t *)(uintptr_t)(ring->ring.data + (*ring->ring.consumer_pos & 4095));
}

/* The new ring is taken up when it has events, or when the old one is quiet since the last look. */
static void test_when_a_ring_is_taken_up(void)
{
	struct file_ring first = make_ring(), second = make_ring(), third = make_ring();

	pin(&first);
	open_pinned();
	follow_by_hand();
	CHECK(lbl_stream_attached(stream));
	pin(&second);
	produce(&first, 3);
	lbl_follow(stream);
	CHECK(!lbl_stream_attached(stream) && !stream->counts.replaced);
	CHECK(stream->counts.received == 3);
	produce(&first, 2);
	produce(&second, 4);
	lbl_follow(stream);
	CHECK(lbl_stream_attached(stream) && stream->counts.replaced == 1);
	CHECK(stream->counts.received == 5 && lbl_stream_drain(stream) == 4);
	lbl_follow(stream);
	pin(&third);
	lbl_follow(stream);
	CHECK(lbl_stream_attached(stream) && stream->counts.replaced == 2);
	CHECK(!stream->counts.taken && !stream->counts.moved && stream->counts.received == 9);
	close_by_hand();
	end_ring(&first);
	end_ring(&second);
	end_ring(&third);
}

/* The records that it held back are counted as lost; without a new ring it is waited for. */
static void test_a_stalled_ring_is_given_up(void)
{
	struct file_ring first = make_ring(), second = make_ring();

	pin(&first);
	open_pinned();
	follow_by_hand();
	produce(&first, 5);
	*head_of(&first) |= LBL_RING_BUSY;
	CHECK(lbl_stream_drain(stream) == 0);
	pin(&second);
	produce(&second, 1);
	lbl_follow(stream);
	CHECK(!lbl_stream_attached(stream) && !stream->counts.taken);
	stream->ring.busy_since -= LBL_STALL_NS;
	lbl_follow(stream);
	CHECK(lbl_stream_attached(stream) && stream->counts.taken == 5);
	CHECK(lbl_stream_drain(stream) == 1 && read_streams(&stream, 1).taken == 5);
	close_by_hand();
	end_ring(&first);
	end_ring(&second);
}

/* A failure leaves the old ring as it is, and the claim of the new one with whoever has it. */
static void test_a_ring_that_cannot_be_had(void)
{
	struct file_ring first = make_ring(), second = make_ring();
	struct lbl_stream *other;

	pin(&first);
	open_pinned();
	follow_by_hand();
	REQUIRE(!lbl_stream_open(second.fd, -1, NULL, &holder, &other));
	pin(&second);
	lbl_follow(stream);
	CHECK(!lbl_stream_attached(stream) && !stream->counts.replaced);
	lbl_stream_free(other);
	REQUIRE(!ftruncate(second.fd, 16)); /* no ring */
	lbl_follow(stream);
	CHECK(!lbl_stream_attached(stream));
	REQUIRE(!ftruncate(second.fd, FILE_RING_SIZE) && !unlink(path));
	lbl_follow(stream);
	CHECK(!lbl_stream_attached(stream));
	pin(&first);
	lbl_follow(stream);
	CHECK(lbl_stream_attached(stream) && !stream->counts.replaced);
	pin(&second);
	lbl_follow(stream);
	CHECK(lbl_stream_attached(stream) && stream->counts.replaced == 1);
	close_by_hand();
	end_ring(&first);
	end_ring(&second);
}

enum { PLACES_MAX = 3 };

/* Rings whose streams are all of this thread, and the places where they are pinned. */
static void turn_places(uint32_t n, const struct file_ring *rings, char (*paths)[80], uint32_t by)
{
	char file[64];
	uint32_t i;

	for (i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "/proc/self/fd/%d", rings[(i + by) % n].fd);
		unlink(paths[i]);
		REQUIRE(!symlink(file, paths[i]));
	}
}

/* Nobody has the ring that another waits for, if each waits for another's. */
static void rings_change_places(uint32_t n)
{
	struct file_ring rings[PLACES_MAX] = { 0 };
	struct lbl_stream *streams[PLACES_MAX], *again;
	char paths[PLACES_MAX][80];
	uint32_t i, look;

	for (i = 0; i < n; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/%u", directory, i);
		rings[i] = make_ring();
	}
	turn_places(n, rings, paths, 0);
	for (i = 0; i < n; i++) {
		const struct lbl_pin at = { .path = paths[i] };

		REQUIRE(!lbl_stream_open(rings[i].fd, -1, &at, &holder, &stream));
		follow_by_hand();
		CHECK(lbl_stream_attached(stream));
		streams[i] = stream;
	}
	turn_places(n, rings, paths, 1);
	for (look = 0; look < 3 * n; look++) {
		for (i = 0; i < n; i++) {
			produce(&rings[i], 1);
			lbl_follow(streams[i]);
			lbl_stream_drain(streams[i]);
		}
	}
	for (i = 0; i < n; i++) {
		CHECK(lbl_stream_attached(streams[i]));
		CHECK(streams[i]->counts.replaced && !streams[i]->counts.taken);
		CHECK(!streams[i]->counts.moved && !streams[i]->counts.corrupt);
		lbl_stream_drain(streams[i]);
		produce(&rings[(i + 1) % n], 1);
		CHECK(lbl_stream_drain(streams[i]) == 1);
		CHECK(lbl_stream_open(rings[i].fd, -1, NULL, &holder, &again) == -EBUSY);
	}
	for (i = 0, look = 0; i < n; i++) {
		look += (uint32_t)streams[i]->counts.received;
		stream = streams[i];
		close_by_hand();
	}
	CHECK(look == 3 * n * n + n); /* nothing is lost on the way */
	for (i = 0; i < n; i++) {
		REQUIRE(!lbl_stream_open(rings[i].fd, -1, NULL, &holder, &again));
		lbl_stream_free(again);
		end_ring(&rings[i]);
		unlink(paths[i]);
	}
}

static void test_two_rings_change_places(void)
{
	rings_change_places(2);
}

static void test_three_rings_change_places(void)
{
	rings_change_places(3);
}

static bool done;

static void *read_on(void *arg)
{
	struct lbl_tracker *tracker = arg;
	struct lbl_tracker_stats stats;
	uint64_t last = 0;

	while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
		CHECK(!lbl_tracker_stats(tracker, &stats) && all_accounted(&stats));
		CHECK(stats.events.received >= last);
		last = stats.events.received;
		lbl_stream_drain(stream);
		sched_yield();
	}
	return NULL;
}

/* The stream's own thread follows, while others drain, read, start and stop. */
static void test_a_swap_amid_everything(void)
{
	struct lbl_tracker *tracker = make_tracker(10, true), *other = make_tracker(10, false);
	struct file_ring rings[3] = { make_ring(), make_ring(), make_ring() };
	struct lbl_tracker_stats stats;
	pthread_t reader;
	int i;

	pin(&rings[0]);
	open_pinned();
	REQUIRE(!start_on(tracker, &stream, 1, "web"));
	REQUIRE(!pthread_create(&reader, NULL, read_on, tracker));
	for (i = 0; i < 3; i++) {
		produce(&rings[i], 10);
		if (i < 2)
			pin(&rings[i + 1]);
		do {
			REQUIRE(!start_on(other, &stream, 1, "web"));
			lbl_tracker_stop(other);
			REQUIRE(!lbl_tracker_stats(tracker, &stats));
		} while (stats.events.replaced < (uint64_t)(i < 2 ? i + 1 : 2));
	}
	lbl_tracker_stop(tracker);
	__atomic_store_n(&done, true, __ATOMIC_RELEASE);
	pthread_join(reader, NULL);
	REQUIRE(!lbl_tracker_stats(tracker, &stats));
	CHECK(stats.events.received == 30 && stats.outcomes.recorded == 30);
	CHECK(stats.events.replaced == 2 && !stats.events.taken && all_accounted(&stats));
	lbl_tracker_free(tracker);
	lbl_tracker_free(other);
	lbl_stream_free(stream);
	for (i = 0; i < 3; i++)
		end_ring(&rings[i]);
}

int main(void)
{
	REQUIRE(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/lbl_events", directory);
	RUN(test_when_a_ring_is_taken_up);
	RUN(test_a_stalled_ring_is_given_up);
	RUN(test_a_ring_that_cannot_be_had);
	RUN(test_two_rings_change_places);
	RUN(test_three_rings_change_places);
	RUN(test_a_swap_amid_everything);
	unlink(path);
	rmdir(directory);
	return checks_done();
}
