-- The code that was sent to an address to show that it is its owner's. One a time: a new one replaces the old.
create table address_verifications (
  tenant_id  int not null,
  address_id uuid not null references addresses on delete cascade,
  salt       bytea not null,
  hash       bytea not null,                         -- sha256(salt, code): a code of six digits, so attempts are bounded
  expires_at timestamptz not null,
  attempts   int2 not null default 0,
  sent       int2 not null default 1,                -- since window_at
  window_at  timestamptz not null,
  sent_at    timestamptz not null,
  primary key (tenant_id, address_id)
);
create index address_verifications_address on address_verifications (address_id);
