-- Where the short links of text messages lead, for as long as the messages are kept. Neither column says it to whoever
-- does not know the code (server/track/short-links.ts).
create table short_links (
  hash       bytea primary key check (length(hash) = 16),
  tenant_id  int not null references tenants,
  box        bytea not null check (length(box) <= 2100),
  expires_at timestamptz not null
);
create index short_links_expiry on short_links (expires_at);
