-- The tenant's messages that a revision's texts say, so that what is removed is known to be missed.
alter table template_revisions add column said text[] not null default '{}';
create index template_revisions_said on template_revisions using gin (said) where said <> '{}';
