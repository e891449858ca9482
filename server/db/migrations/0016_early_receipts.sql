-- Receipts whose delivery is not recorded yet: kept, so that a crash loses none, and asked again a few times. Of no
-- tenant, as nobody knows yet whose they are; sealed by a key of the installation, and gone within minutes.
create table early_receipts (
  id       bigint generated always as identity primary key,
  provider text not null,
  channel  int2 not null,
  round    int2 not null default 0,                  -- looks so far
  due_at   timestamptz not null,
  receipt  bytea not null
);
create index early_receipts_due on early_receipts (due_at);
