-- Messages that belong together: a key of the sender's, opaque to us and no content. At most 200 characters.
alter table notifications add column thread text;
alter table feed add column thread text;
-- Pays nothing for items without one. Nothing of it changes when an item is read, so those updates stay HOT.
create index feed_thread on feed (tenant_id, user_id, thread, seq) where thread is not null;

alter table feed_changes add column thread text;      -- of thread_read: all items of it
alter table feed_changes drop constraint feed_changes_change_check;
alter table feed_changes add constraint feed_changes_change_check check (change in ('seen', 'read', 'unread', 'archived', 'unarchived', 'snoozed', 'unsnoozed', 'removed', 'all_seen', 'all_read', 'thread_read')) not valid;

-- One row a reader and thread, for as long as there is an item of it.
create table feed_threads (
  tenant_id int not null,
  user_id   text not null,
  thread    text not null check (length(thread) between 1 and 200),
  items     int not null check (items > 0),
  unread    int not null check (unread >= 0),          -- as feed_heads counts: neither archived nor snoozed
  last_seq  bigint not null,                           -- of its newest item
  primary key (tenant_id, user_id, thread)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
create index feed_threads_newest on feed_threads (tenant_id, user_id, last_seq);

-- Whoever writes to an inbox holds its head (server/ledger/append-feed.ts), so rows of one reader have one writer.
-- Here and not in each statement that changes an inbox: there are ten of them, and none of them can forget it.
create function follow_threads() returns trigger language plpgsql as $$
declare
  before int := 0;
  after int := 0;
begin
  if tg_op <> 'INSERT' then
    before := (old.archived_at is null and old.snoozed_until is null and old.read_at is null)::int;
  end if;
  if tg_op <> 'DELETE' then
    after := (new.archived_at is null and new.snoozed_until is null and new.read_at is null)::int;
  end if;
  if tg_op = 'INSERT' then
    insert into feed_threads as t (tenant_id, user_id, thread, items, unread, last_seq)
    values (new.tenant_id, new.user_id, new.thread, 1, after, new.seq)
    on conflict (tenant_id, user_id, thread) do update
      set items = t.items + 1, unread = t.unread + excluded.unread, last_seq = greatest(t.last_seq, excluded.last_seq);
  elsif tg_op = 'UPDATE' then
    if after <> before then
      update feed_threads set unread = unread + after - before
      where tenant_id = new.tenant_id and user_id = new.user_id and thread = new.thread;
    end if;
  else
    delete from feed_threads
    where tenant_id = old.tenant_id and user_id = old.user_id and thread = old.thread and items = 1;
    if not found then
      update feed_threads t set items = items - 1, unread = unread - before,
        last_seq = case when t.last_seq > old.seq then t.last_seq else coalesce((
          select f.seq from feed f
          where f.tenant_id = t.tenant_id and f.user_id = t.user_id and f.thread = t.thread order by f.seq desc limit 1
        ), t.last_seq) end                               -- none: the rest went with it, and comes here next
      where tenant_id = old.tenant_id and user_id = old.user_id and thread = old.thread;
    end if;
  end if;
  return null;
end $$;
create trigger follow_threads_insert after insert on feed for each row when (new.thread is not null) execute function follow_threads();
create trigger follow_threads_update after update on feed for each row
  when (new.thread is not null and (old.read_at is distinct from new.read_at or old.archived_at is distinct from new.archived_at or old.snoozed_until is distinct from new.snoozed_until))
  execute function follow_threads();
create trigger follow_threads_delete after delete on feed for each row when (old.thread is not null) execute function follow_threads();
