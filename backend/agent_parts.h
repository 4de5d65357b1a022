/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the agent's client, for backend/agent*.c alone:
 *
 *   agent_ops.c    the waist's ops and the lists, each one or more asks
 *   agent_ask.c    one request and its reply: what is tried again, and when not
 *   agent_open.c   a connection: found, connected, greeted
 *   agent_pool.c   the connections of one process
 *   agent_io.c     bytes over a socket, with a deadline
 *   agent_spawn.c  a private agent
 */
#ifndef KMS_BACKEND_AGENT_PARTS_H
#define KMS_BACKEND_AGENT_PARTS_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "backend/agent.h"

#define KMS_AGENT_CONNECTIONS_MAX 64  /* of one process, idle and busy; more callers wait */
#define KMS_AGENT_PATH_MAX        108 /* of a socket, with NUL: sun_path */

/* ---- agent_io.c: errno values as results, 0 is success; nothing is logged or kept ---------- */

/* How long, and whether the caller still wants it. */
struct kms_agent_wait {
    uint64_t deadline_ns;
    const atomic_bool *cancelled; /* may be NULL */
};
#define KMS_AGENT_EOF ENODATA /* the peer closed, all it wrote is read */

/* A connected socket above 2, or why not. Never blocks. */
int kms_agent_io_connect(const char *path, int *ret_fd);
/* All of @bytes. ETIMEDOUT, ECANCELED, or what send() says. */
int kms_agent_io_send(int fd, struct kms_span bytes, const struct kms_agent_wait *wait);
/* At least one byte into @buf; tries for @spin_ns before it sleeps. KMS_AGENT_EOF. */
int kms_agent_io_recv(int fd, struct kms_buf *buf, uint64_t spin_ns,
                      const struct kms_agent_wait *wait);
/* Sleeps; 0, ETIMEDOUT when the deadline comes first, or ECANCELED. */
int kms_agent_io_pause(uint64_t ns, const struct kms_agent_wait *wait);
/* Up to twice as long after each @attempt, at random below that. */
uint64_t kms_agent_io_backoff(unsigned attempt);

/* ---- agent_pool.c --------------------------------------------------------------------------- */

/* A connection belongs to the one thread that took it. */
struct kms_agent_conn {
    int fd; /* -1: not connected */
    dev_t dev;
    ino_t ino;
    bool used;              /* it has been in the pool: the server may have closed it since */
    uint64_t idle_ns;       /* how long the server lets it be quiet */
    uint64_t idle_until_ns; /* then it is not used any more */
    uint64_t generation;    /* which of the agents that we saw it leads to */
    uint64_t last_id;       /* of the last request */
    struct kms_buf io;      /* request, then reply; secure memory */
    struct kms_buf arena;   /* the reply unpacked; secure memory */
    size_t dirty;           /* bytes of io that hold something */
    unsigned slot;
    struct kms_agent_conn *next; /* idle */
};

struct kms_agent_pool {
    pthread_mutex_t lock; /* guards all below; never held across I/O */
    pthread_cond_t given;
    struct kms_agent_conn *all[KMS_AGENT_CONNECTIONS_MAX];
    struct kms_agent_conn *idle; /* the one used last is first */
    unsigned idle_count;
    unsigned idle_max;
    unsigned open_count; /* idle and taken */
};

enum kms_status kms_agent_pool_init(struct kms_agent_pool *pool, unsigned idle_max) KMS_MUST_CHECK;
/* No connection is taken. */
void kms_agent_pool_done(struct kms_agent_pool *pool);
/* In a forked child: every socket of the parent's is closed without a word. */
void kms_agent_pool_forked(struct kms_agent_pool *pool);
/* An idle connection that is still ours, or one to be connected (->fd is -1). Waits while all
 * KMS_AGENT_CONNECTIONS_MAX are taken: KMS_E_BUSY when that lasts to the deadline, KMS_E_NOMEM. */
enum kms_status kms_agent_pool_take(struct kms_agent_pool *pool, const struct kms_agent_wait *wait,
                                    struct kms_agent_conn **ret_conn,
                                    struct kms_error *err) KMS_MUST_CHECK;
/* Wipes it; kept connected when @good and there is room. NULL is fine. */
void kms_agent_pool_give(struct kms_agent_pool *pool, struct kms_agent_conn *conn, bool good);
/* Closes the idle connections that do not lead to @generation. */
void kms_agent_pool_drop_old(struct kms_agent_pool *pool, uint64_t generation);
void kms_agent_pool_count(struct kms_agent_pool *pool, unsigned *ret_open, unsigned *ret_busy);
/* Closed, if the descriptor still is ours. */
void kms_agent_conn_close(struct kms_agent_conn *conn);
/* Secure memory of at least @size bytes; what is in it stays. KMS_E_NOMEM. */
enum kms_status kms_agent_conn_reserve(struct kms_buf *buf, size_t size,
                                       struct kms_error *err) KMS_MUST_CHECK;
void kms_agent_conn_wipe(struct kms_agent_conn *conn);

/* ---- the agent ------------------------------------------------------------------------------ */

struct kms_agent {
    atomic_uint refs;
    char socket[KMS_AGENT_PATH_MAX];
    char private_socket[KMS_AGENT_PATH_MAX]; /* "": there is none */
    char *private_config;
    char *daemon;
    uint64_t call_timeout_ns;
    unsigned cpus; /* that this process may run on */
    struct kms_agent_pool pool;

    atomic_bool reached;             /* an agent has answered in this process */
    atomic_bool system;              /* the system's agent has: no private one is wanted */
    atomic_bool away;                /* and then one call waited for it in vain */
    atomic_uint_fast64_t generation; /* of instances seen, from 1; 0: none yet */
    atomic_uint_fast64_t reconnects;
    atomic_uint spin_skip;               /* calls that shall not wait awake */
    atomic_uint spin_penalty;            /* how many more after the next time in vain */
    atomic_uint_fast64_t spawn_again_ns; /* before then no private agent is started */
    pthread_mutex_t lock;                /* guards what follows */
    uint8_t instance[KMS_AGENT_INSTANCE];
    struct kms_error last; /* how the last call ended, as far as the agent is concerned */
};

/* Entered and left by every public function: errno and the thread's cancel state are the host's. */
struct kms_agent_guard {
    int error;
    int cancel;
};
static inline struct kms_agent_guard kms_agent_enter(void)
{
    struct kms_agent_guard guard = {.error = errno};

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard.cancel);
    return guard;
}
static inline void kms_agent_leave(const struct kms_agent_guard *guard)
{
    (void)pthread_setcancelstate(guard->cancel, NULL);
    errno = guard->error;
}

/* ---- agent_open.c --------------------------------------------------------------------------- */

/* What a failure means for who asked. */
enum kms_agent_outcome {
    KMS_AGENT_GOOD,
    KMS_AGENT_ABSENT, /* nobody listens */
    KMS_AGENT_AGAIN,  /* it did not work, and nothing was done: a new attempt is safe */
    KMS_AGENT_LOST,   /* the request was read, its reply did not come */
    KMS_AGENT_FAILED  /* another attempt would not help */
};

/* Connects @conn and says hello. */
enum kms_agent_outcome kms_agent_open(struct kms_agent *agent, struct kms_agent_conn *conn,
                                      const struct kms_agent_wait *wait, struct kms_error *err);
/* One frame into conn->io, and how its reading ended; the body is behind the header. */
int kms_agent_recv_frame(struct kms_agent_conn *conn, uint64_t spin_ns,
                         const struct kms_agent_wait *wait, struct kms_span *ret_body,
                         struct kms_error *err);
/* Packs @message into conn->io, at the front. */
enum kms_status kms_agent_conn_pack(struct kms_agent_conn *conn, const ProtobufCMessage *message,
                                    struct kms_error *err) KMS_MUST_CHECK;

/* ---- agent_ask.c ---------------------------------------------------------------------------- */

struct kms_agent_ask {
    Kms__Agent__Request request; /* token and op by the caller; id and timeout are set here */
    bool repeat;                 /* may be done twice */

    struct kms_agent_conn *conn; /* holds the reply until kms_agent_answered() */
    const Kms__Agent__Reply *reply;
    bool repeated; /* it may have been done twice */
};

/* Asks, and waits for a reply without an error: else call->error is set. */
enum kms_status kms_agent_ask(struct kms_agent *agent, struct kms_call *call,
                              struct kms_agent_ask *ask) KMS_MUST_CHECK;
/* The reply has been used. */
void kms_agent_answered(struct kms_agent *agent, struct kms_agent_ask *ask);

/* ---- agent_spawn.c -------------------------------------------------------------------------- */

/* Where the user's private agent listens. KMS_E_INVALID when it does not fit into a socket's
 * address. */
enum kms_status kms_agent_private_path(char ret_path[KMS_AGENT_PATH_MAX],
                                       struct kms_error *err) KMS_MUST_CHECK;
/* Starts one unless it runs, and connects to it. */
enum kms_status kms_agent_spawn(struct kms_agent *agent, const struct kms_agent_wait *wait,
                                int *ret_fd, struct kms_error *err) KMS_MUST_CHECK;

#endif
