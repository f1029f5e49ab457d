-- One row per trip, with what the meter, the map and the way of paying say. View: trips (the Chicago taxi rows that
-- ship with TFX). A tip above a fifth of the fare makes a big tipper; `tips` itself is the label in other words.

with trips_in_time as (
    select
        *,
        make_timestamp(1970, 1, 1, 0, 0, 0) + trip_start_timestamp * interval 1 second as trip_start
    from trips
)

select
    -- The data has no identifier. Start (to the quarter hour), place, price and length make one; trips that agree
    -- in all of them would be numbered in a fixed order.
    concat_ws(
        '-', trip_start_timestamp, pickup_community_area, fare, trip_seconds, trip_miles,
        row_number() over (
            partition by trip_start_timestamp, pickup_community_area, fare, trip_seconds, trip_miles
            order by dropoff_latitude, dropoff_longitude, payment_type, company, tips
        )
    ) as trip_id,
    trip_start,
    case when tips > 0.2 * fare then 1 else 0 end as is_big_tipper,

    payment_type,
    company,
    trip_start_month,
    trip_start_day,
    trip_start_hour,

    fare,
    trip_miles,
    trip_seconds,
    -- A price far from what the distance explains is a flat fare or a trip that stood in traffic.
    case when trip_miles > 0 then fare / trip_miles end as fare_per_mile,
    case when trip_seconds > 0 then 60 * fare / trip_seconds end as fare_per_minute,

    pickup_community_area,
    pickup_latitude,
    pickup_longitude,
    cast(dropoff_community_area as bigint) as dropoff_community_area,
    dropoff_latitude,
    dropoff_longitude
from trips_in_time
