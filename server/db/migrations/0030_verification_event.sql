-- The event that brought the code: by its delivery it is known who sent it, and so who can tell whether it is right.
alter table address_verifications add column event_id uuid;
