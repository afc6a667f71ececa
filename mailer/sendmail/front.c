/* The compiled front end of mailer-sendmail. It submits the usual mail to the receiver without starting Python,
 * which would take most of the time of such a call. `scripts/front` compiles it.
 *
 * It handles the command lines and messages of nearly all calls by cron, PHP and git, if a receiver answers.
 * In all other cases it runs the Python program, with the same arguments, environment and standard input:
 * other options, messages without From, quotes or comments in addresses, Resent- fields, bare CRs, no
 * receiver. So this file implements a rule only for input with a single interpretation; in doubt a function
 * returns PYTHON. tests/sendmail/test_sendmail_front.py compares the two programs.
 *
 * It runs with its caller's privileges and needs no others. Never make it set-user-ID, because it trusts the
 * environment. Memory is not freed, because the process ends after one message.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#ifndef PYTHON_PROGRAM
#error "scripts/front says where the interpreter is: -DPYTHON_PROGRAM='\"/opt/mailer/bin/python\"'"
#endif

#define SOCKET "/run/mailer/submit.sock"
static const struct timeval PATIENCE = {.tv_sec = 300}; /* to wait for a reply; the receiver waits as long */
static const size_t MOST = 256u << 20; /* octets of a message; the Python program refuses a larger one */
/* With more recipients, both sides could block on full buffers. No server accepts a longer address. */
enum { MOST_RECIPIENTS = 100, LONGEST_ADDRESS = 320, LONGEST_REPLY = 8192 };
enum { PYTHON = -1 }; /* in place of an exit code: run the Python program; nothing has been submitted */

#define BLANKS " \t\r\n" /* white space in a folded header; a message with bare CRs does not get this far */
#define ATOM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"

struct order {
    const char *sender; /* the value of -f, or NULL */
    bool from_header, ignores_dots;
    size_t recipients;
    char *recipient[MOST_RECIPIENTS];
};

struct message { char *data; size_t size; bool eight_bit; };

/* Executes the Python program. Input that has been read is passed on as standard input, in a memory file. */
static int run_python(int argc, char **argv, const struct message *input)
{
    static char code[] = "import sys; del sys.argv[0]; from mailer.sendmail.main import main; "
                         "sys.exit(main())";
    /* -I: do not import from the current directory, which may belong to any user, nor from the PYTHONPATH of an
     * application, which may have a package `mailer` of its own. */
    char *first[] = {PYTHON_PROGRAM, "-I", "-c", code};
    char **arguments = calloc((size_t)argc + 5, sizeof *arguments);
    int memory = input ? memfd_create("message", MFD_CLOEXEC) : STDIN_FILENO;
    FILE *file = input && memory >= 0 ? fdopen(memory, "w") : NULL;
    bool whole = !input || (file && fwrite(input->data, 1, input->size, file) == input->size &&
                            fflush(file) == 0 && lseek(memory, 0, SEEK_SET) == 0 &&
                            dup2(memory, STDIN_FILENO) == STDIN_FILENO);
    if (arguments && whole) {
        memcpy(arguments, first, sizeof first);
        memcpy(arguments + 4, argv, (size_t)argc * sizeof *argv);
        execv(PYTHON_PROGRAM, arguments);
    }
    fprintf(stderr, "mailer-sendmail: %s cannot be started: %s\n", PYTHON_PROGRAM, strerror(errno));
    return EX_TEMPFAIL;
}

/* Adds the addresses of a list to the recipients: bare ones, and ones in brackets after a name of atoms.
 * Returns false if the list has anything else. */
static bool take_addresses(struct order *order, const char *list)
{
    for (const char *at = list;; at++) {
        at += strspn(at, BLANKS);
        size_t name = strspn(at, ATOM "." BLANKS);
        bool brackets = at[name] == '<';
        at += brackets ? name + 1 : 0;
        size_t size = strspn(at, ATOM ".@");
        if (size == 0 || size > LONGEST_ADDRESS || order->recipients == MOST_RECIPIENTS)
            return false;
        order->recipient[order->recipients] = strndup(at, size);
        at += size;
        if (!order->recipient[order->recipients++] || (brackets && *at++ != '>'))
            return false;
        at += strspn(at, BLANKS);
        if (*at != ',')
            return *at == '\0';
    }
}

/* Parses the command line; returns false if it has rare options, or no -i. Without -i a line with only a dot
 * ends the message, and only the Python program implements that. */
static bool take_command_line(struct order *order, char **at)
{
    for (; *at && at[0][0] == '-' && at[0][1]; at++) {
        const char *option = *at + 1;
        /* Ignore options that only tune a mail server, such as -oem, -odb and -B8BITMIME. */
        bool tunes = strchr("oB", option[0]) && option[1] && !strchr("iI", option[1]);
        if (strcmp(option, "-") == 0) {
            at++;
            break;
        } else if (option[strspn(option, "it")] == '\0' || strcmp(option, "oi") == 0) {
            order->from_header |= strchr(option, 't') != NULL;
            order->ignores_dots |= strchr(option, 'i') != NULL;
        } else if (strchr("frF", option[0])) {
            const char *value = option[1] ? option + 1 : *++at;
            if (!value)
                return false;
            if (option[0] != 'F') /* -F is only used for a message without From */
                order->sender = value;
        } else if (!tunes && strcmp(option, "bm") != 0) {
            return false;
        }
    }
    for (; *at; at++)
        if (strpbrk(*at, "\r\n") || !take_addresses(order, *at))
            return false;
    return order->ignores_dots;
}

/* Reads standard input to its end, or beyond MOST; returns false if it cannot be read. */
static bool read_input(struct message *input)
{
    size_t room = 1u << 16;
    while ((input->data = realloc(input->data, room))) {
        ssize_t more = read(STDIN_FILENO, input->data + input->size, room - input->size);
        if (more < 0)
            return false;
        input->size += (size_t)more;
        if (more == 0 || input->size > MOST)
            return true;
        room *= input->size == room ? 2 : 1;
    }
    return false;
}

/* Converts a message for DATA: with CRLF line ends (all CRs before an LF belong to the line end) and stuffed
 * dots. Returns false if it has a bare CR or a NUL, which the receiver refuses, or if memory is lacking. */
static bool stuff(const struct message *input, struct message *wire)
{
    size_t size = 0;
    /* An LF or a stuffed dot becomes two octets; the last line end may be missing; the final dot is added. */
    char *data = wire->data = malloc(2 * input->size + 6);
    for (size_t i = 0; data && i < input->size; i++) {
        char letter = input->data[i], before = size ? data[size - 1] : '\n';
        if (letter == '\0' || (before == '\r' && letter != '\r' && letter != '\n'))
            return false;
        if (letter == '.' && before == '\n')
            data[size++] = '.';
        if (letter == '\n') {
            while (size && data[size - 1] == '\r')
                size--;
            data[size++] = '\r';
        }
        data[size++] = letter;
        wire->eight_bit |= (letter & 0x80) != 0;
    }
    if (size == 0 || data[size - 1] == '\r')
        return false;
    strcpy(data + size, data[size - 1] == '\n' ? ".\r\n" : "\r\n.\r\n");
    wire->size = size + strlen(data + size);
    return true;
}

static bool is(const char *name, size_t size, const char *word)
{
    return size == strlen(word) && strncasecmp(name, word, size) == 0;
}

/* Parses a header, which must have a From field and end in an empty line; with -t it takes recipients from To,
 * Cc and Bcc. Returns false for any other header. */
static bool take_header(struct order *order, const struct message *wire)
{
    bool has_from = false;
    for (const char *field = wire->data, *end; field[0] != '\r'; field = end) {
        size_t size = 0;
        while (field[size] > ' ' && field[size] < 127 && field[size] != ':')
            size++;
        if (size == 0 || field[size] != ':') /* also the separator line of an mbox file, "From user@host ..." */
            return false;
        for (end = field; end == field || *end == ' ' || *end == '\t';)
            end = strchr(end, '\n') + 1;
        has_from |= is(field, size, "From");
        if (!order->from_header)
            continue;
        if (size > 7 && is(field, 7, "Resent-"))
            return false;
        if (is(field, size, "To") || is(field, size, "Cc") || is(field, size, "Bcc")) {
            char *value = strndup(field + size + 1, (size_t)(end - field) - size - 1);
            if (!value || !take_addresses(order, value))
                return false;
        }
    }
    return has_from;
}

/* Reads a reply. Returns EX_OK if it begins with `class`; prints a refusal and returns its exit code; returns
 * PYTHON if the receiver is gone or stopping. `recipient` is the one that the reply is about, or NULL. */
static int expect(FILE *receiver, char class, int exit_code, const char *recipient)
{
    char line[LONGEST_REPLY];
    do
        if (!fgets(line, sizeof line, receiver) || strspn(line, "0123456789") != 3)
            return PYTHON;
    while (line[3] == '-');
    if (line[0] == class)
        return EX_OK;
    if (line[0] < '4' || strncmp(line, "421", 3) == 0)
        return PYTHON;
    if (line[0] == '4')
        exit_code = EX_TEMPFAIL;
    else if (strncmp(line + 3, " 5.7.", 5) == 0)
        exit_code = EX_NOPERM;
    line[strcspn(line, "\r\n")] = '\0';
    fprintf(stderr, recipient ? "%s: <%s>: the receiver says: %s; nothing was sent to anybody\n"
                              : "%s: %sthe receiver says: %s\n",
            program_invocation_short_name, recipient ? recipient : "", line);
    return exit_code;
}

/* Returns a connection to the receiver, or -1. */
static int connected(void)
{
    const char *place = getenv("MAILER_SUBMIT_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!place || !*place)
        place = SOCKET;
    int made = strlen(place) < sizeof address.sun_path ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (made < 0)
        return -1;
    strcpy(address.sun_path, place);
    setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof PATIENCE);
    setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &PATIENCE, sizeof PATIENCE);
    return connect(made, (struct sockaddr *)&address, sizeof address) == 0 ? made : -1;
}

/* Flushes the output. If a part could not be sent, nothing more may be, or the receiver would get a message
 * with a gap. Its last reply says why it closed the connection. */
static void send_to(FILE *receiver)
{
    if (ferror(receiver) || fflush(receiver) != 0)
        shutdown(fileno(receiver), SHUT_WR);
}

/* Submits a message; returns the exit code, or PYTHON if the receiver has no part of the message. */
static int hand_over(const struct order *order, const char *sender, const struct message *wire)
{
    int made = connected();
    FILE *from = made < 0 ? NULL : fdopen(made, "r"), *to = from ? fdopen(made, "w") : NULL;
    int code = to ? expect(from, '2', EX_NOPERM, NULL) : PYTHON;
    if (code == EX_OK) {
        fputs("EHLO localhost\r\n", to);
        send_to(to);
        code = expect(from, '2', EX_PROTOCOL, NULL);
    }
    if (code == EX_OK) {
        /* Pipeline these commands (RFC 2920). */
        fprintf(to, "MAIL FROM:<%s> SIZE=%zu%s\r\n", sender, wire->size,
                wire->eight_bit ? " BODY=8BITMIME" : "");
        for (size_t i = 0; i < order->recipients; i++)
            fprintf(to, "RCPT TO:<%s>\r\n", order->recipient[i]);
        fputs("DATA\r\n", to);
        send_to(to);
        code = expect(from, '2', EX_DATAERR, NULL);
    }
    /* All recipients or none: after a failure the caller may send the whole message again. */
    for (size_t i = 0; code == EX_OK && i < order->recipients; i++)
        code = expect(from, '2', EX_NOUSER, order->recipient[i]);
    if (code == EX_OK)
        code = expect(from, '3', EX_DATAERR, NULL);
    if (code != EX_OK)
        return code;
    fwrite(wire->data, 1, wire->size, to);
    send_to(to);
    code = expect(from, '2', EX_DATAERR, NULL);
    if (code != PYTHON)
        return code;
    /* Do not return PYTHON, because another attempt might send the mail twice. */
    fprintf(stderr, "%s: the receiver is gone, after it was given the message: it may have it, or not\n",
            program_invocation_short_name);
    return EX_TEMPFAIL;
}

static int submit(struct order *order, const struct message *input)
{
    struct message wire = {.size = 0};
    struct order by = {.recipients = 0};
    if (input->size > MOST || !stuff(input, &wire) || !take_header(order, &wire) || order->recipients == 0)
        return PYTHON;
    if (order->sender && strcmp(order->sender, "<>") == 0)
        return hand_over(order, "", &wire);
    const struct passwd *caller = order->sender ? NULL : getpwuid(getuid());
    const char *sender = caller ? caller->pw_name : order->sender;
    if (!sender || strpbrk(sender, "\r\n") || !take_addresses(&by, sender) || by.recipients != 1)
        return PYTHON;
    return hand_over(order, by.recipient[0], &wire);
}

int main(int argc, char **argv)
{
    static struct order order;
    struct message input = {.size = 0};
    const char *name = program_invocation_short_name;
    if (argc < 1)
        return EX_USAGE;
    signal(SIGPIPE, SIG_IGN); /* the program must return an exit code even if a pipe or socket is closed */
    bool ours = strcmp(name, "sendmail") == 0 || strcmp(name, "mailer-sendmail") == 0; /* not mailq */
    /* If a standard descriptor were closed, the socket or the memory file would get its number. */
    for (int file = STDIN_FILENO; file <= STDERR_FILENO; file++)
        ours = ours && fcntl(file, F_GETFD) >= 0;
    if (!ours || !take_command_line(&order, argv + 1))
        return run_python(argc, argv, NULL);
    if (!read_input(&input)) {
        fprintf(stderr, "%s: standard input cannot be read: %s\n", name, strerror(errno));
        return EX_TEMPFAIL;
    }
    int code = submit(&order, &input);
    return code == PYTHON ? run_python(argc, argv, &input) : code;
}
