"""The defects: each breaks one promise, by a change that a tired programmer could make."""

from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Defect:
    """One change to one module."""

    name: str
    harm: str
    """What it does to somebody's mail."""
    module: str
    """The file, below `mailer/`."""
    sound: str
    """The text as it is, which occurs once."""
    broken: str
    tests: tuple[str, ...]
    """What pytest is to run; files below `tests/`, or tests in them."""

    @property
    def digest(self) -> str:
        """Changes with the defect, so that a result is known to be of this one."""
        text = "\0".join((self.module, self.sound, self.broken, *self.tests))
        return sha256(text.encode()).hexdigest()[:8]

    def plant(self, source: str) -> str:
        """Return the module's source with the defect in it.

        Raises:
            ValueError: the sound text does not occur, or not once.
        """
        if source.count(self.sound) != 1:
            raise ValueError(
                f"{self.name}: {source.count(self.sound)} times in mailer/{self.module}: {self.sound!r}"
            )
        return source.replace(self.sound, self.broken)


DEFECTS = (
    # What is durable when.
    Defect(
        "message-not-synced",
        "a power cut leaves acknowledged mail empty",
        "spool/incoming.py",
        "    def sync(self) -> None:\n        os.fsync(self._fd)",
        "    def sync(self) -> None:\n        pass",
        ("spool/test_spool_durable.py", "spool/test_spool_committer.py"),
    ),
    Defect(
        "destination-not-synced",
        "a power cut takes acknowledged mail",
        "spool/committer.py",
        "                self._spool.sync_directory(name)\n            except OSError as error:",
        "                pass\n            except OSError as error:",
        ("spool/test_spool_committer.py", "spool/test_spool_durable.py"),
    ),
    Defect(
        "source-not-synced",
        "a power cut brings deferred mail back where it was",
        "spool/committer.py",
        "        self._sync_each(sources)\n",
        "",
        ("spool/test_spool_committer.py", "spool/test_spool_durable.py"),
    ),
    Defect(
        "removal-not-synced",
        "delivered mail comes back after a power cut, and is sent again",
        "spool/committer.py",
        "            del self._removals[name]\n            self._announced.discard(name)\n            try:\n"
        "                self._spool.sync_directory(name)",
        "            del self._removals[name]\n            self._announced.discard(name)\n            try:\n"
        "                pass",
        ("spool/test_spool_committer.py", "spool/test_spool_durable.py"),
    ),
    Defect(
        "claim-not-left-behind",
        "delivered mail comes back in new/ after a power cut, and is sent again",
        "spool/changes.py",
        "_OF_CLAIMED = (Place.CUR.value, Place.NEW.value)",
        "_OF_CLAIMED = (Place.CUR.value,)",
        ("spool/test_spool_committer.py", "spool/test_spool_durable.py"),
    ),
    Defect(
        "rename-before-sync",
        "a power cut shows acknowledged mail without its end",
        "spool/committer.py",
        "        for job in group:\n            job.attempt(job.change.sync)\n"
        "        for job in group:\n            if job.error is None:\n"
        "                job.attempt(job.change.move)\n",
        "        for job in group:\n            job.attempt(job.change.move)\n"
        "        for job in group:\n            if job.error is None:\n"
        "                job.attempt(job.change.sync)\n",
        ("spool/test_spool_committer.py", "spool/test_spool_durable.py"),
    ),
    Defect(
        "sweep-not-synced",
        "due mail is in no directory after a power cut",
        "spool/run/sweep.py",
        "                spool.sync_directory(Place.NEW)\n                for locked in moved.values():",
        "                for locked in moved.values():",
        ("spool/test_spool_sweep.py",),
    ),
    Defect(
        "swept-bucket-not-synced",
        "mail that was sent comes back in its bucket after a power cut",
        "spool/run/sweep.py",
        "                spool.sync_directory(spots[0].directory)\n",
        "                pass\n",
        ("spool/test_spool_sweep.py",),
    ),
    Defect(
        "state-not-synced",
        "a power cut leaves an empty file in state/",
        "ground/durable.py",
        "            os.fsync(fd)\n",
        "",
        ("spool/test_spool_durable.py", "spool/test_clock_guard.py"),
    ),
    Defect(
        "failed-sync-forgotten",
        "a second fsync says that all is well, and the journal is lost",
        "spool/locked_message.py",
        "            self.lost = error\n            raise",
        "            raise",
        ("spool/test_spool_claim.py::test_after_a_sync_that_failed_no_later_one_is_believed",),
    ),
    Defect(
        "failed-sync-tried-again",
        "a second fsync of a journal in hand says that all is well, and the journal is lost",
        "send/journals.py",
        "            if self._locked.lost is None:\n",
        "            if True:\n",
        ("spool/test_spool_renaming.py::test_a_journal_in_hand_whose_sync_failed_is_not_synced_again",),
    ),
    Defect(
        "torn-rename",
        "on ext4 without a journal a power cut leaves a message without a name",
        "spool/renaming.py",
        "    if not spool.renames_are_whole:",
        "    if False:",
        ("spool/test_spool_renaming.py",),
    ),
    Defect(
        "sync-error-of-another-process",
        "a disk that refuses the journal's writes is not noticed, and mail is acknowledged",
        "spool/directory.py",
        "            check_takes_changes(directory)",
        "            pass",
        ("spool/test_sync_errors.py",),
    ),
    # Who owns a message.
    Defect(
        "no-lock",
        "two runners send the same message",
        "spool/locked_message.py",
        "    if not lock(fd):\n        raise Busy(spot.path)\n",
        "    lock(fd)\n",
        ("spool/test_spool_claim.py", "spool/test_spool_many.py"),
    ),
    Defect(
        "no-look-after-the-lock",
        "a runner sends a message that another one has just finished",
        "spool/locked_message.py",
        "    if (opened.st_ino, opened.st_dev) != (named.st_ino, named.st_dev) or opened.st_nlink == 0:\n"
        "        raise Gone(spot.path)\n",
        "",
        ("spool/test_spool_claim.py", "spool/test_spool_intruders.py"),
    ),
    Defect(
        "others-files",
        "a file that another user put into the spool is sent",
        "spool/locked_message.py",
        "    if opened.st_uid != os.geteuid():",
        "    if False:",
        ("spool/test_spool_intruders.py", "spool/test_spool_claim.py"),
    ),
    Defect(
        "symlinks-followed",
        "a link in the spool has another file read as mail",
        "spool/locked_message.py",
        "_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        "_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC",
        ("spool/test_spool_intruders.py", "spool/test_spool_claim.py"),
    ),
    Defect(
        "rename-replaces",
        "a message with the same name is overwritten",
        "spool/syscalls.py",
        "_RENAME_NOREPLACE = 1",
        "_RENAME_NOREPLACE = 0",
        ("spool/test_spool_renaming.py",),
    ),
    Defect(
        "digest-not-compared",
        "a damaged message is sent",
        "spool/entry.py",
        "    if entry.state.accepted is None or digest.hexdigest() != entry.state.accepted.sha256:",
        "    if entry.state.accepted is None:",
        ("spool/test_spool_damage.py", "spool/test_spool_claim.py"),
    ),
    # What the journal says.
    Defect(
        "sent-is-not-final",
        "a later line has somebody mailed twice",
        "spool/fold.py",
        "if (known := standings.get(address)) and known.status is not _SENT:",
        "if known := standings.get(address):",
        ("spool/test_spool_journal.py",),
    ),
    Defect(
        "torn-line-joined",
        "a line that a crash tore takes the next one with it",
        "spool/locked_message.py",
        "        if self._torn:\n            lines",
        "        if False:\n            lines",
        ("spool/test_spool_claim.py", "spool/test_spool_crash.py"),
    ),
    Defect(
        "committing-not-written",
        "a crash behind the final dot is not seen, and the message is sent again by another provider",
        "send/record.py",
        "        self._append([event], line, of_promise=len(line))\n        self.handed_over",
        "        self.claim.locked.give_back(len(line))\n        self.handed_over",
        ("send/test_send_crash.py", "send/test_send_uncertain.py"),
    ),
    Defect(
        "no-room-for-the-outcome",
        "a full disk makes what was delivered unknown",
        "send/record.py",
        "        self.claim.locked.reserve(len(line) + sum(promised.values()))\n",
        "        self.claim.locked._promised += len(line) + sum(promised.values())\n",
        ("send/test_send_disk.py",),
    ),
    Defect(
        "deaths-not-recorded",
        "a message that kills its runner does so for ever, and no other mail is sent",
        "spool/run/claim.py",
        "                self._append(locked, Kind.RECOVERED)\n",
        "",
        ("spool/test_spool_claim.py",),
    ),
    Defect(
        "poison-never-held",
        "a message that kills its runner is tried for ever",
        "send/worker.py",
        "        if claim.poison:",
        "        if False:",
        ("send/test_send_crash.py::test_a_message_that_kills_its_runners_is_tried_alone_and_then_held",),
    ),
    # When mail is tried again, and given up.
    Defect(
        "clock-ahead-strands",
        "mail that was deferred while the clock was ten years ahead waits for ten years",
        "spool/due.py",
        "not now < due <= last)",
        "due <= now)",
        ("spool/test_spool_sweep.py",),
    ),
    Defect(
        "early-retry",
        "mail is tried before its pause is over",
        "spool/layout.py",
        "    return math.ceil(due / 60) * 60",
        "    return math.floor(due / 60) * 60",
        ("spool/test_spool_sweep.py", "spool/test_spool_layout.py", "send/test_send_retry.py"),
    ),
    Defect(
        "clock-believed",
        "a clock that is wrong for a minute expires the whole queue",
        "spool/state/clock_guard.py",
        "        return moved if abs(moved) > _EVEN else 0.0",
        "        return 0.0",
        ("spool/test_clock_guard.py",),
    ),
    Defect(
        "awaited-notification-removed",
        "a sender is never told that mail was given up",
        "spool/run/sweep.py",
        " or is_awaited(spool, locked)):",
        "):",
        ("spool/test_spool_notice.py", "spool/test_spool_sweep.py"),
    ),
    Defect(
        "notification-before-the-line",
        "a crash makes a second bounce",
        "spool/run/notice.py",
        '        """Nothing moves: that its name is durable where it is, is the point."""\n\n'
        "    def directories(self) -> tuple[str, ...]:\n        return (Place.TMP.value,)",
        "        self._notification.move_whole()\n\n"
        "    def directories(self) -> tuple[str, ...]:\n        return (Place.TMP.value,)",
        ("spool/test_spool_notice.py", "send/test_bounce_once.py"),
    ),
    Defect(
        "bounce-of-a-bounce",
        "two servers send each other bounces for ever",
        "send/dsn/owed.py",
        "        if not sender or config.bounce == BOUNCE_OFF:",
        "        if config.bounce == BOUNCE_OFF:",
        ("send/test_send_dsn.py::test_mail_from_the_null_sender_causes_no_notification",),
    ),
    # What comes in.
    Defect(
        "bare-line-ends-taken",
        "one message is read as two by the next server (SMTP smuggling)",
        "receive/content/data.py",
        "        if has_bare_line_end(body):\n            self.fault = Fault.BARE_LINE_END\n",
        "",
        ("receive/test_receive_data.py", "receive/test_receive_smuggling.py"),
    ),
    Defect(
        "dots-not-unstuffed",
        "a line that begins with a dot has one more",
        "receive/content/data.py",
        'body = body.replace(b"\\r\\n.", b"\\r\\n")',
        "pass",
        ("receive/test_receive_data.py",),
    ),
    Defect(
        "failed-commit-kept",
        "the client is told 452 and sends again, and both copies are delivered",
        "spool/incoming.py",
        "            self.discard()\n        except OSError as error:\n            raise NotUndone",
        "            self.release()\n        except OSError as error:\n            raise NotUndone",
        ("spool/test_spool_committer.py", "spool/test_spool_disk_trouble.py"),
    ),
    Defect(
        "disk-filled-to-the-end",
        "the disk is filled by new mail, and no runner can write a journal",
        "receive/space.py",
        "        return self._free.lacks_inodes or self._free.is_under(self._min_free + size)",
        "        return self._free.lacks_inodes",
        ("receive/test_receive_server.py", "cli/test_our_refusals.py", "receive/test_receive_ledger.py"),
    ),
    Defect(
        "unknown-inodes-taken-for-none",
        "on CephFS all mail is refused with 452",
        "spool/free_space.py",
        "    return free if 0 <= free <= total and total > 0 else None",
        "    return free if total > 0 else None",
        ("spool/test_free_space.py",),
    ),
    Defect(
        "new-spool-not-marked",
        "after a power cut while the spool is made, no program starts until somebody makes its mark",
        "spool/preparation.py",
        "recognizable as a spool.\n        os.fsync(root)",
        "recognizable as a spool.\n        pass",
        ("spool/test_spool_layout.py",),
    ),
    Defect(
        "moved-before-it-is-given-up",
        "a message that moves to another spool is sent by both",
        "spool/handover/arriving.py",
        "            arriving = Event(at=at, event=Kind.ARRIVING,",
        "            arriving = Event(at=at, event=Kind.ARRIVED,",
        ("spool/test_handover.py",),
    ),
    Defect(
        "moved-and-stuck-in-hold",
        "a message that has moved to another spool is never sent, and nothing says why",
        "spool/handover/parking.py",
        "        left = super().sources()\n        self._locked.append(self._event)\n"
        "        self._locked.sync()\n        return left",
        "        return super().sources()\n\n    def move(self) -> None:\n"
        "        self._locked.append(self._event)\n        super().move()",
        ("spool/test_handover.py",),
    ),
    Defect(
        "moved-to-what-a-power-cut-takes",
        "a message that has moved to another spool is gone after a power cut there",
        "spool/handover/arriving.py",
        "        for name in dict.fromkeys((spot.place.value, spot.directory)):",
        "        for name in ():",
        ("spool/test_handover_resumed.py",),
    ),
    Defect(
        "arrival-not-recorded",
        "a spool that has sent a message says that it never had it, and the other one sends it as well",
        "spool/run/claim.py",
        "                idempotency.confirm_arrival(locked, entry.state.arrived_by)",
        "                pass",
        ("spool/test_handover_resumed.py",),
    ),
    Defect(
        "move-resumed-elsewhere",
        "a message whose move is resumed with another spool is sent by two",
        "spool/handover/leaving.py",
        "    if move and move.spool != where.spool:",
        "    if move and move.spool == where.spool is None:",
        ("spool/test_handover_resumed.py",),
    ),
    Defect(
        "limit-not-counted-at-once",
        "a hundred sessions together pass a sender's limit",
        "receive/users/rates.py",
        "        at = self._clock()\n        self._count(user, sender, at)\n        return at",
        "        return self._clock()",
        ("receive/test_receive_rates.py",),
    ),
    Defect(
        "from-not-checked",
        "a user sends as somebody else",
        "receive/content/header_policy.py",
        "            if not origin.may_send_as.match(address):",
        "            if False:",
        ("cli/test_our_refusals.py", "receive/test_receive_dialogues.py"),
    ),
    Defect(
        "acts-as-another",
        "a user who logs in with PLAIN acts as another one",
        "receive/users/auth.py",
        'Credentials(authcid, password) if authzid in {"", authcid} else None',
        "Credentials(authzid or authcid, password)",
        ("receive/test_receive_users.py::test_who_logs_in_with_plain_acts_for_nobody_else",),
    ),
    Defect(
        "key-confirmed-late",
        "a submission that is repeated after a crash is queued twice",
        "spool/run/claim.py",
        "                idempotency.confirm(locked, entry.state.accepted.once)",
        "                pass",
        ("receive/test_idempotency.py",),
    ),
    # What goes out.
    Defect(
        "removed-message-comes-back",
        "a message that the client was refused comes back after a power cut, beside its repetition",
        "spool/key_file.py",
        "                self._keep_out()\n",
        "",
        ("receive/test_idempotency.py",),
    ),
    Defect(
        "dots-not-stuffed",
        "a line with one dot ends the message, and the rest is read as commands",
        "send/smtp/body.py",
        r'stuffed = block.replace(b"\n.", b"\n..") if _DOT in block else block',
        "stuffed = block",
        ("send/test_send_body.py",),
    ),
    Defect(
        "block-boundary-dot",
        "a dot at the start of a block ends the message",
        "send/smtp/body.py",
        '        if self._at_line_start and block.startswith(b"."):\n            stuffed = b"." + stuffed\n',
        "",
        ("send/test_send_body.py",),
    ),
    Defect(
        "certificates-not-verified",
        "credentials and mail go to whoever sits in between",
        "send/smtp/tls.py",
        "    if not verify:",
        "    if True:",
        ("send/test_send_tls.py",),
    ),
    Defect(
        "credentials-in-clear",
        "a password crosses the network in clear",
        "send/smtp/opening.py",
        "        if not self._wire.tls and not (self._hop.on_this_host and self._wire.loopback):",
        "        if False:",
        ("send/test_send_tls.py", "send/test_send_client.py", "send/test_send_secrets.py"),
    ),
    Defect(
        "bytes-before-tls",
        "what an attacker sends before the handshake is read as the server's word",
        "send/smtp/opening.py",
        "        self._check()  # a byte more than the 220, in clear, is an attack (RFC 3207 4.2)\n",
        "",
        ("send/test_send_tls.py", "send/test_send_client.py"),
    ),
    Defect(
        "one-mail-closes-a-provider",
        "one bad message keeps all mail from a provider",
        "send/routes/breaker.py",
        "    mail = ailment.mail\n    if mail is None or ailment.kind is Kind.ALIKE:\n        return True\n",
        "    return True\n",
        ("send/test_send_reply_laws.py", "send/test_send_providers.py"),
    ),
    Defect(
        "breaker-never-opens",
        "every message waits for the time-out of a provider that is down",
        "send/routes/breaker.py",
        "        case Health.CLOSED if not _opens(heard, ailment):",
        "        case Health.CLOSED:",
        ("send/test_send_providers.py",),
    ),
    # Who may look, and act.
    Defect(
        "any-page-submits",
        "a web page that knows a token, or a name that is rebound to 127.0.0.1, sends mail",
        "receive/web/access.py",
        "    if not _names_us(hosts[0], asked, settings):",
        "    if False:",
        ("receive/test_submit_http.py::test_a_page_in_a_browser_cannot_submit_even_with_a_token",),
    ),
    Defect(
        "values-end-lines",
        "what somebody types into a web form becomes a header field of the application's mail",
        "receive/web/compose.py",
        '    if any(unicodedata.category(each) in {"Cc", "Zl", "Zp", "Cs"} for each in text):',
        "    if False:",
        (
            "receive/test_submit_http_content.py::test_json_that_is_no_mail_is_refused_with_the_place_and_the_reason",
        ),
    ),
    Defect(
        "taken-before-it-is-durable",
        "an application is told 202, and its mail is lost with the receiver",
        "receive/dialogue.py",
        "        return await self._expect_positive()\n\n    async def _chunk",
        '        return Reply(250, ("2.0.0 Ok: queued as " + "0" * 26,))\n\n    async def _chunk',
        ("receive/test_submit_http_programs.py",),
    ),
    Defect(
        "any-host-name",
        "a web page whose name is rebound to 127.0.0.1 reads the queue",
        "monitor/guard.py",
        "    if not _names_us(hosts[0]):",
        "    if False:",
        ("monitor/test_monitor_guard.py", "monitor/test_monitor_admin.py"),
    ),
    Defect(
        "empty-token",
        "without adminToken anybody may act",
        "config/secrets.py",
        "return hmac.compare_digest(mine, theirs) and not self.empty",
        "return hmac.compare_digest(mine, theirs)",
        ("config/test_config_secrets.py", "monitor/test_monitor_token.py", "monitor/test_monitor_admin.py"),
    ),
    Defect(
        "content-shown-unasked",
        "who has the monitor's token reads all mail, although the operator has not allowed it",
        "monitor/page/content.py",
        "        if not context.config.show_content:\n",
        "        if False:\n",
        ("monitor/test_monitor_content.py",),
    ),
    Defect(
        "html-mail-acts",
        "an HTML mail that is looked at runs scripts and calls its author",
        "monitor/page/sanitised.py",
        "    f\"sandbox; default-src 'none'; style-src",
        '    f"style-src',
        ("monitor/test_monitor_content.py", "monitor/test_monitor_content_browser.py"),
    ),
    Defect(
        "replayed-to-the-same",
        "a recipient gets a message twice, since its address was typed with other capitals",
        "cli/spool/replay.py",
        "            had = map(mailbox, recipients)\n",
        "            had = iter(recipients)\n",
        ("cli/test_cli_replay.py",),
    ),
    Defect(
        "watchdog-fed-blindly",
        "a receiver that holds a spool which is not there any more is never restarted",
        "cli/service/watchdog.py",
        "        return Verdict(feed=not (mendable and passed), words=",
        "        return Verdict(feed=True, words=",
        ("cli/test_service_manager.py",),
    ),
    # Allowances and the suppression list.
    Defect(
        "reservation-not-durable",
        "after a power cut more is sent than a provider allows",
        "spool/state/budgets.py",
        "                if granted:\n                    os.fsync(directory)\n",
        "",
        ("house/test_lab.py::test_no_promise_is_broken_wherever_a_story_ends",),
    ),
    Defect(
        "dead-runs-use-forgotten",
        "what a killed run may have sent is not counted, and the provider refuses mail",
        "mail/budget.py",
        "        use = settled(use, name, [(now, use.held[name])], 0)",
        "        use = settled(use, name, [], 0)",
        ("send/test_budgets.py",),
    ),
    Defect(
        "use-before-a-reboot-forgotten",
        "what was under way when the power failed is not counted, and the provider refuses mail",
        "mail/budget.py",
        "            used.append((0.0, lost))",
        "            pass",
        ("send/test_budgets.py",),
    ),
    Defect(
        "slot-not-locked",
        "runners make more connections than a provider allows, and it refuses them",
        "spool/state/slots.py",
        "                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "                except BlockingIOError:",
        "                    pass\n                except BlockingIOError:",
        ("send/test_session_slots.py", "send/test_budgets_used_up.py"),
    ),
    Defect(
        "suppression-not-durable",
        "an address that must not be mailed is mailed after a power cut",
        "spool/state/suppression.py",
        "src_dir_fd=directory, dst_dir_fd=directory)\n        os.fsync(directory)\n",
        "src_dir_fd=directory, dst_dir_fd=directory)\n",
        ("send/test_suppression.py",),
    ),
    Defect(
        "suppression-list-not-synced",
        "a power cut leaves an empty file of the suppression list",
        "spool/state/suppression.py",
        '                _sync(directory, f".{name}")',
        "                pass",
        ("send/test_suppression.py",),
    ),
    Defect(
        "suppression-without-a-lock",
        "of two addresses that are suppressed at once, one is mailed",
        "spool/state/suppression.py",
        "            fcntl.flock(directory, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))",
        "            pass",
        ("send/test_suppress_unknown.py",),
    ),
    # Interfaces over HTTP.
    Defect(
        "header-widens-recipients",
        "people get mail that was not sent to them",
        "send/http/addressed.py",
        "if named and len(set(named)) == len(named) and left.keys() >= set(named):",
        "if named and len(set(named)) == len(named):",
        ("send/test_send_http_header.py",),
    ),
    Defect(
        "gateway-timeout-is-a-refusal",
        "mail that was delivered is delivered again, by another provider",
        "send/http/session.py",
        "        if answer.failed and whole:",
        "        if answer.failed and not whole:",
        ("send/test_send_http.py",),
    ),
    Defect(
        "request-whole-before-its-end",
        "mail that nobody got is held as uncertain",
        "send/http/exchange.py",
        "        self.whole, self._failure = False, None",
        "        self.whole, self._failure = True, None",
        ("send/test_send_http.py",),
    ),
    Defect(
        "redirect-followed",
        "a login and a mail go to whatever host an answer names",
        "send/http/exchange.py",
        "                allow_redirects=False,",
        "                allow_redirects=True,",
        ("send/test_send_http.py",),
    ),
    Defect(
        "asked-pause-doubled",
        "a provider's pause is not kept",
        "send/routes/breaker.py",
        "min(ailment.pause, LONGEST_ASKED) if ailment.asked else",
        "min(ailment.pause, LONGEST_ASKED) if not ailment.asked else",
        ("send/test_send_http_answers.py",),
    ),
    Defect(
        "old-mail-waits-for-a-budget",
        "nobody is told for days that a mail was not delivered",
        "send/unbudgeted.py",
        "        if self._is_overdue(state.since):\n            return True",
        "        if self._is_overdue(state.since):\n            return False",
        (
            "send/test_budgets_used_up.py::test_only_mail_that_needs_no_budget_is_claimed_while_all_are_used_up",
        ),
    ),
    Defect(
        "refused-request-uses-a-budget",
        "some 429 use up a day's allowance, and its mail waits",
        "send/budgets.py",
        "        unheard = isinstance(error, HopTrouble) and not isinstance(error, SessionLost)",
        "        unheard = False",
        (
            "send/test_budgets_used_up.py::test_a_request_that_is_answered_429_uses_nothing_and_one_without_an_answer_does",
        ),
    ),
    Defect(
        "login-in-a-trace",
        "a password is in a file that operators send to others",
        "send/smtp/wire.py",
        "_masked(out) if self.is_secret else out",
        "out",
        ("send/test_trace_secrets.py::test_a_login_that_a_server_quotes_is_in_no_file",),
    ),
    Defect(
        "answer-quoted",
        "passwords can be tried against what a server quotes of CRAM-MD5",
        "send/smtp/machine.py",
        "self.conceal = self._reader.conceal = self.conceal.with_answer(answer)",
        "pass",
        ("send/test_trace_secrets.py::test_a_login_that_a_server_quotes_is_in_no_file",),
    ),
    Defect(
        "trace-for-each-failure",
        "a queue of 100,000 messages to a broken server fills the disk's cache with traces",
        "send/traces.py",
        "if words <= known.keys() or len(known) >= PER_HOP:",
        "if False:",
        ("send/test_trace_count.py::test_one_trace_stands_for_all_failures_that_are_alike_in_all_runs",),
    ),
    # Messages begun behind the dot of the one before.
    Defect(
        "refusal-out-of-step",
        "one recipient's refusal bounces another, when a server answers a dot twice",
        "send/smtp/machine.py",
        "(self._lacks_reset and phase in _COMMANDS and reply.code >= 400)",
        "False",
        ("send/test_send_smtp.py",),
    ),
    Defect(
        "begun-for-another",
        "a message that was never sent gets the outcome of another one",
        "send/smtp/client.py",
        "return self._ready and not self._is_begun and not self.used_up",
        "return self._ready and not self.used_up",
        ("send/test_send_behind.py",),
    ),
    Defect(
        "tries-behind-dots-for-ever",
        "a server that hangs up on what comes behind a dot gets message after message twice",
        "send/smtp/behind.py",
        "if takes is None and not session.underway:",
        "if False:",
        ("send/test_send_behind.py",),
    ),
    Defect(
        "new-connection-for-each-message",
        "a server that needs a second for a message gets a new connection and login for each",
        "send/smtp/behind.py",
        "self._is_slow, self.is_open = True, False",
        "pass",
        (
            "send/test_send_behind.py::test_with_a_server_that_needs_its_time_for_each_message_one_session_is_lost_and_no_more",
        ),
    ),
    Defect(
        "waits-behind-a-dot",
        "a message waits for minutes for the reply to another one, beside free connections",
        "send/smtp/behind.py",
        "PATIENCE = 1.0",
        "PATIENCE = 600.0",
        ("send/test_send_behind.py",),
    ),
    # Several hosts.
    Defect(
        "lease-never-ends",
        "a host that was suspended sends mail that another one has taken over",
        "spool/hosts/lease.py",
        "        if self._now() >= self._until or self.lost:",
        "        if self._now() < 0:",
        ("end_to_end/test_hosts_lab.py",),
    ),
    Defect(
        "adopted-at-once",
        "a host takes a spool over while its programs still accept and send",
        "spool/hosts/adoption.py",
        "    until = clocks.uptime() + LEASE + MARGIN",
        "    until = clocks.uptime()",
        ("end_to_end/test_hosts_lab.py",),
    ),
    Defect(
        "epoch-not-seen",
        "a host that is declared off and is not accepts mail that nobody sends",
        "spool/hosts/lease.py",
        "        if epoch is None or not epoch.is_of(self._machine):\n            self.lost",
        "        if epoch is None:\n            self.lost",
        ("spool/test_hosts.py",),
    ),
)
