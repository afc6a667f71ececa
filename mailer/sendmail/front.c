/* The front of mailer-sendmail: it hands the usual mail to the receiver without starting Python, which is
 * most of what such a call takes. `scripts/front` compiles it.
 *
 * It takes what cron, PHP and git say nearly always, if a receiver answers. Everything else goes to the
 * Python program, with the same arguments, environment and standard input: other options, messages without
 * From, quotes or comments in addresses, Resent- fields, bare CRs, no receiver. So a rule stands here only
 * for forms that have one reading; in doubt the answer is PYTHON. tests/test_sendmail_front.py holds the two
 * programs against each other.
 *
 * It has its caller's rights and needs no others. Never make it set-user-ID: it obeys the environment.
 * Nothing is freed: it ends with its one message.
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
static const struct timeval PATIENCE = {.tv_sec = 300}; /* for a reply: the receiver's for a silent client */
static const size_t MOST = 256u << 20; /* octets of a message; that a larger one is refused, Python says */
/* With more recipients both sides could wait for each other's buffers. Longer addresses no server takes. */
enum { MOST_RECIPIENTS = 100, LONGEST_ADDRESS = 320, LONGEST_REPLY = 8192 };
enum { PYTHON = -1 }; /* in place of an exit code: this is not a case for us, and nothing was done */

#define BLANKS " \t\r\n" /* in a header, where lines are folded; bare CRs do not get this far */
#define ATOM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"

struct order {
    const char *sender; /* -f, or NULL */
    bool from_header, ignores_dots;
    size_t recipients;
    char *recipient[MOST_RECIPIENTS];
};

struct message { char *data; size_t size; bool eight_bit; };

/* Becomes the Python program. What was read of standard input goes along, in a file in memory. */
static int run_python(int argc, char **argv, const struct message *input)
{
    static char code[] = "import sys; del sys.argv[0]; from mailer.sendmail.main import main; "
                         "sys.exit(main())";
    /* -P: not what lies in the current directory, which may be anybody's. */
    char *first[] = {PYTHON_PROGRAM, "-P", "-c", code};
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

/* Takes bare addresses, and those in brackets behind a name of atoms; false: there is something else. */
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

/* Reads the command line, without the options that few use. Without -i a line with only a dot ends the
 * message: when to stop reading, Python knows. */
static bool take_command_line(struct order *order, char **at)
{
    for (; *at && at[0][0] == '-' && at[0][1]; at++) {
        const char *option = *at + 1;
        /* -oem, -odb, -B8BITMIME and their like tune a mail server. */
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
            if (option[0] != 'F') /* that is for a message without From */
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

/* Reads standard input to its end, or beyond MOST; false: it cannot be read. */
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

/* Makes of a message what DATA has: lines end in CRLF (all CRs before an LF are part of the line end), dots
 * are stuffed. False: it has what the receiver refuses, a bare CR or a NUL; or there is no memory. */
static bool stuff(const struct message *input, struct message *wire)
{
    size_t size = 0;
    /* A line end and a stuffed dot are two octets each; a line end may be missing; the final dot is added. */
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

/* Reads a header that has a From field and ends in an empty line; with -t, To, Cc and Bcc say to whom. */
static bool take_header(struct order *order, const struct message *wire)
{
    bool has_from = false;
    for (const char *field = wire->data, *end; field[0] != '\r'; field = end) {
        size_t size = 0;
        while (field[size] > ' ' && field[size] < 127 && field[size] != ':')
            size++;
        if (size == 0 || field[size] != ':') /* also a line of an mbox file, "From user@host ..." */
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

/* Reads a reply. Returns EX_OK for one of this class; for a refusal its exit code, and says why; and PYTHON when
 * the receiver is gone, or going. `recipient` is whom the reply is about, or NULL. */
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

/* Sends what was written. When a part cannot be sent the receiver hears no more, lest the end of a message
 * follow its beginning; its last reply says why. */
static void send_to(FILE *receiver)
{
    if (ferror(receiver) || fflush(receiver) != 0)
        shutdown(fileno(receiver), SHUT_WR);
}

/* Hands a message over; returns the exit code, or PYTHON, and then the receiver has nothing of it. */
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
        /* One group (RFC 2920). */
        fprintf(to, "MAIL FROM:<%s> SIZE=%zu%s\r\n", sender, wire->size,
                wire->eight_bit ? " BODY=8BITMIME" : "");
        for (size_t i = 0; i < order->recipients; i++)
            fprintf(to, "RCPT TO:<%s>\r\n", order->recipient[i]);
        fputs("DATA\r\n", to);
        send_to(to);
        code = expect(from, '2', EX_DATAERR, NULL);
    }
    /* All or nothing: a caller that sees a failure may send the whole again. */
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
    /* Not to be tried again by anybody here: that would be a second mail. */
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
    signal(SIGPIPE, SIG_IGN); /* neither a receiver that hangs up nor a caller that does decides how we end */
    bool ours = strcmp(name, "sendmail") == 0 || strcmp(name, "mailer-sendmail") == 0; /* not mailq */
    /* With one of the three closed the socket, or the message, would take its place. */
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
