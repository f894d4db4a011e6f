/*
 * Tags of log lines. Each is used once, never again for something else, and
 * explained in docs/messages.md. httpd floors only: the rooms below return an
 * abb_error_t and write no log.
 */
#ifndef ABB_LOG_H
#define ABB_LOG_H

/* "ABB0042: " in front of a line. */
#define ABB_LOGNO(number) "ABB" #number ": "

#endif
