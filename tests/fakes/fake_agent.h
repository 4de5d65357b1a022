/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent in threads of the test's own process, that answers as told: truly, or with one of the
 * faults below, so many times. Keys are "key-0", "key-1", ...; a ciphertext is its plaintext with
 * every byte flipped; a signature is "signed:" and the input.
 */
#ifndef KMS_TESTS_FAKES_FAKE_AGENT_H
#define KMS_TESTS_FAKES_FAKE_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/agent_wire.h"

enum fake_fault {
    FAKE_NONE,
    FAKE_SLOW,        /* answers after fake_agent_fault()'s milliseconds */
    FAKE_SILENT,      /* never answers */
    FAKE_DRIP,        /* answers byte by byte */
    FAKE_CUT_HEADER,  /* hangs up in the middle of the reply's header */
    FAKE_CUT_BODY,    /* in the middle of its body */
    FAKE_HANG_UP,     /* reads the request, hangs up */
    FAKE_NOT_READ,    /* hangs up with the request half read */
    FAKE_GARBAGE,     /* a frame that is no message */
    FAKE_EMPTY,       /* a frame of length 0 */
    FAKE_HUGE,        /* a frame longer than may be */
    FAKE_MORE,        /* a byte behind the reply */
    FAKE_WRONG_ID,    /* answers another request */
    FAKE_ERROR,       /* an error of fake_agent_fault()'s status */
    FAKE_NO_ERROR,    /* an error of status 0 */
    FAKE_BAD_OUTPUT,  /* longer, emptier or otherwise other than asked for */
    FAKE_LATER_KEYS,  /* the last key of a page is of a type that only later versions know */
    FAKE_HELLO_FIRST, /* the faults below come instead of the welcome */
    FAKE_HELLO_DENIED,
    FAKE_HELLO_BUSY,
    FAKE_HELLO_VERSION,  /* a version that the client did not offer */
    FAKE_HELLO_INSTANCE, /* no instance */
    FAKE_HELLO_HANG_UP,
    FAKE_HELLO_SILENT,
    FAKE_HELLO_GARBAGE
};

struct fake_agent;

/* Listens on @path before it returns; NULL when it cannot. */
struct fake_agent *fake_agent_start(const char *path);
/* Hangs up on everybody, unlinks the socket, waits for its threads. */
void fake_agent_stop(struct fake_agent *fake);

/* The next @count requests (or hellos) meet @fault; @value as the fault says. */
void fake_agent_fault(struct fake_agent *fake, enum fake_fault fault, unsigned count,
                      unsigned value);
/* How many keys list_keys has (8 a page); 3 at first. Idle time in the welcome; 60 at first. */
void fake_agent_keys(struct fake_agent *fake, unsigned count);
void fake_agent_idle(struct fake_agent *fake, unsigned seconds);

unsigned fake_agent_requests(struct fake_agent *fake, Kms__Agent__Request__OpCase op);
unsigned fake_agent_connections(struct fake_agent *fake); /* since its start */
unsigned fake_agent_open(struct fake_agent *fake);        /* now */

#endif
